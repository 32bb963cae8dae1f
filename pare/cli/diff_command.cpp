// pare diff: two checkpoints, tensor by tensor.
#include <fmt/format.h>

#include <cmath>

#include "pare/cli/commands.h"
#include "pare/convert/diff.h"
#include "pare/report/table.h"

namespace pare::cli {
namespace {

Json to_json(const DiffSide& side) {
  return {{"name", side.name},
          {"grid", side.type},
          {"bits_per_weight", side.bits},
          {"shape", {side.shape.rows, side.shape.cols}}};
}

Json finite_or_null(double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); }

Json to_json(const Diff& diff) {
  Json tensors = Json::array(), only_a = Json::array(), only_b = Json::array();
  for (const DiffTensor& t : diff.tensors) {
    Json row = {{"a", to_json(t.a)}, {"b", to_json(t.b)}, {"comparable", t.comparable}};
    if (t.comparable) {
      row["relative_error"] = finite_or_null(t.relative_error);
      row["cosine"] = t.cosine;
      row["largest_difference"] = t.largest;
      row["different_values"] = t.different;
    }
    tensors.push_back(std::move(row));
  }
  for (const DiffSide& side : diff.only_in_a) only_a.push_back(to_json(side));
  for (const DiffSide& side : diff.only_in_b) only_b.push_back(to_json(side));
  return {{"equal", diff.equal()}, {"relative_error", finite_or_null(diff.relative_error)},
          {"tensors", tensors},    {"only_in_a", only_a},
          {"only_in_b", only_b},   {"notes", diff.notes}};
}

std::string shape_text(Shape s) { return fmt::format("{} x {}", s.rows, s.cols); }

std::string to_text(const Diff& diff) {
  Table table{.columns = {{"tensor"},
                          {"A"},
                          {"bits", Align::right},
                          {"B"},
                          {"bits", Align::right},
                          {"relative error", Align::right},
                          {"cosine", Align::right},
                          {"largest", Align::right}},
              .rows = {}};
  for (const DiffTensor& t : diff.tensors) {
    std::vector<std::string> row = {t.a.name, t.a.type, fmt::format("{:.3f}", t.a.bits), t.b.type,
                                    fmt::format("{:.3f}", t.b.bits)};
    if (!t.comparable)
      row.insert(row.end(), {fmt::format("{} against {}", shape_text(t.a.shape), shape_text(t.b.shape)), "", ""});
    else if (t.different == 0)
      row.insert(row.end(), {"equal", "1", "0"});
    else
      row.insert(row.end(), {fmt::format("{:.3e}", t.relative_error), fmt::format("{:.9f}", t.cosine),
                             fmt::format("{:.3e}", t.largest)});
    table.rows.push_back(std::move(row));
  }
  std::string out = pare::to_text(table) + "\n";
  for (const DiffSide& side : diff.only_in_a)
    out += fmt::format("only in A: {} {}\n", side.name, shape_text(side.shape));
  for (const DiffSide& side : diff.only_in_b)
    out += fmt::format("only in B: {} {}\n", side.name, shape_text(side.shape));
  for (const std::string& note : diff.notes) out += note + "\n";
  return out + (diff.equal() ? "every value is equal\n"
                             : fmt::format("relative error of all weights together: {:.3e}\n", diff.relative_error));
}

}  // namespace

int diff_command(Session& session, std::span<const std::string> arguments) {
  std::string a, b;
  Options options(
      {.command = "diff",
       .summary = "Compares the weights of two checkpoints in any formats; names, row order and grids may differ.",
       .example = "pare diff demo_model demo-q4_k.gguf"});
  options
      .add({.names = "A",
            .target = &a,
            .help = "HF directory or .gguf file: errors are relative to it",
            .required = true})
      .add({.names = "B", .target = &b, .help = "the other", .required = true});
  if (!parse_command(options, session, arguments)) return 0;
  const Diff result = diff(open_model(a, session), open_model(b, session), session.observer());
  session.end_progress();
  session.result(to_json(result), to_text(result));
  return 0;
}

}  // namespace pare::cli
