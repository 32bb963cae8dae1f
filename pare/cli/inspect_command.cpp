#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <regex>

#include "pare/cli/commands.h"
#include "pare/cli/inspect.h"
#include "pare/report/table.h"
#include "pare/report/units.h"

namespace pare::cli {
namespace {

// Tensors of one type, or of one name but for the layer's number.
struct Kind {
  std::string name, shape, type;
  int64_t count = 0, parameters = 0, bytes = 0;
  void add(const InspectedTensor& tensor) {
    ++count;
    parameters += tensor.parameters;
    bytes += tensor.bytes;
  }
};

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("{}", fmt::join(shape, " x ")); }

// Groups in the order of their first tensor.
template <class Key>
std::vector<Kind> grouped(const Inspection& inspection, Key&& key) {
  std::vector<Kind> out;
  std::map<std::string, size_t> index;
  for (const InspectedTensor& tensor : inspection.tensors) {
    const auto [name, id] = key(tensor);
    const auto [at, added] = index.try_emplace(id, out.size());
    if (added) out.push_back({.name = name, .shape = shape_text(tensor.shape), .type = tensor.type});
    out[at->second].add(tensor);
  }
  return out;
}

// "model.layers.*.mlp.up_proj.weight": all layers on one line.
std::string without_layer(const std::string& name) {
  static const std::regex kNumber(R"(\.\d+\.)");
  return std::regex_replace(name, kNumber, ".*.");
}

Json quantization_json(const Checkpoint& checkpoint, const Inspection& inspection) {
  Json types = Json::array();
  for (const Kind& kind : grouped(inspection, [](const InspectedTensor& t) { return std::pair(t.type, t.type); }))
    types.push_back(
        {{"type", kind.type}, {"tensors", kind.count}, {"parameters", kind.parameters}, {"bytes", kind.bytes}});
  Json out = {{"scheme", inspection.quantization}, {"types", types}};
  const Json& config = checkpoint.config();
  if (config.is_object() && config.contains("quantization_config")) out["config"] = config["quantization_config"];
  return out;
}

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json to_json(const Checkpoint& checkpoint, const Inspection& inspection) {
  Json tensors = Json::array();
  for (const InspectedTensor& t : inspection.tensors)
    tensors.push_back(
        {{"name", t.name}, {"shape", t.shape}, {t.on_grid ? "grid" : "dtype", t.type}, {"bytes", t.bytes}});
  Json out = {{"architecture", inspection.architecture},
              {"format", name_of(inspection.format)},
              {"parameters", inspection.parameters},
              {"file_bytes", inspection.file_bytes},
              {"weight_bytes", inspection.weight_bytes},
              {"bits_per_weight", inspection.bits_per_weight},
              {"context_length", or_null(inspection.context_length)},
              {"layers", or_null(inspection.layers)},
              {"hidden_size", or_null(inspection.hidden)},
              {"vocabulary_size", or_null(inspection.vocabulary)},
              {"quantization", quantization_json(checkpoint, inspection)},
              {"tensors", tensors}};
  if (inspection.unsupported) out["unsupported"] = *inspection.unsupported;
  return out;
}

std::string card(const Inspection& i) {
  Table table{.columns = {{""}, {""}}, .rows = {}};
  const auto row = [&](const char* name, std::string value) { table.rows.push_back({name, std::move(value)}); };
  const auto number = [](const std::optional<int64_t>& x) { return x ? std::to_string(*x) : "unknown"; };
  row("architecture",
      (i.architecture.empty() ? "unknown" : i.architecture) + (i.unsupported ? " (not one that pare runs)" : ""));
  row("format", std::string(name_of(i.format)));
  row("quantization", i.quantization);
  row("parameters", fmt::format("{} ({})", human_count(i.parameters), i.parameters));
  row("size", fmt::format("{} of weights, {:.2f} bits per weight; files {}", human_bytes(i.weight_bytes),
                          i.bits_per_weight, human_bytes(i.file_bytes)));
  row("context", number(i.context_length) + " tokens");
  row("shape",
      fmt::format("{} layers, {} wide, vocabulary {}", number(i.layers), number(i.hidden), number(i.vocabulary)));
  return to_text(table);
}

std::string tensor_table(const Inspection& inspection, bool all) {
  const auto kinds = grouped(inspection, [&](const InspectedTensor& t) {
    const std::string name = all ? t.name : without_layer(t.name);
    return std::pair(name, name + "|" + t.type + "|" + (all ? "" : shape_text(t.shape)));
  });
  Table table{.columns = {{"tensor"}, {"count", Align::right}, {"shape"}, {"type"}, {"bytes", Align::right}},
              .rows = {}};
  for (const Kind& kind : kinds)
    table.rows.push_back({kind.name, std::to_string(kind.count), kind.shape, kind.type, human_bytes(kind.bytes)});
  return to_text(table);
}

}  // namespace

int inspect_command(Session& session, std::span<const std::string> arguments) {
  std::string model;
  bool all = false;
  Options options({.command = "inspect",
                   .summary = "Shows what a checkpoint holds; of any architecture, and without reading the weights.",
                   .example = "pare inspect demo_model"});
  options.add({.names = "MODEL", .target = &model, .help = "HF directory or .gguf file", .required = true})
      .add({.names = "--tensors", .target = &all, .help = "list every tensor, not one line for all layers"});
  if (!parse_command(options, session, arguments)) return 0;

  const auto checkpoint = open_model(model, session);
  const Inspection inspection = inspect(*checkpoint);
  session.result(to_json(*checkpoint, inspection), card(inspection) + "\n" + tensor_table(inspection, all));
  return 0;
}

}  // namespace pare::cli
