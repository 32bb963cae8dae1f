#include "pare/quantize/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "pare/base/error.h"
#include "pare/quantize/mixture.h"

namespace pare {
namespace {

constexpr Grid kQ4_0 = BlockSpec{BlockSpec::Type::q4_0};
constexpr Grid kQ8_0 = BlockSpec{BlockSpec::Type::q8_0};
constexpr Grid kQ4_K = SuperBlockSpec{SuperBlockSpec::Type::q4_k};
constexpr Grid kQ6_K = SuperBlockSpec{SuperBlockSpec::Type::q6_k};
constexpr Grid kMxfp4 = CodebookSpec{CodebookSpec::Levels::e2m1, ScaleKind::e8m0, 32};
constexpr Grid kNvfp4 = CodebookSpec{CodebookSpec::Levels::e2m1, ScaleKind::ue4m3, 16};
constexpr Grid fp8(int64_t group, int64_t rows) {
  return CodebookSpec{.levels = CodebookSpec::Levels::e4m3, .group = group, .rows = rows};
}
constexpr Grid bnb(CodebookSpec::Levels levels, bool nested) {
  return CodebookSpec{.levels = levels, .scale = ScaleKind::f32, .group = 64, .nested = nested};
}
constexpr Grid kLlmInt8 = CodebookSpec{CodebookSpec::Levels::int8, ScaleKind::f32, 0};
constexpr Grid biased(int bits, int64_t group) {
  return AffineSpec{.bits = bits, .group = group, .symmetric = false, .biased = true};
}
constexpr Grid affine(int bits, int64_t group, bool symmetric = true) {
  return AffineSpec{.bits = bits, .group = group, .symmetric = symmetric};
}

std::vector<Recipe> with_mixtures(std::vector<Recipe> rows) {
  for (const Mixture& m : all_mixtures())
    rows.push_back({std::string(m.name),
                    "gguf",
                    Method::rtn,
                    parse_target(m.base),
                    {},
                    {},
                    std::string(m.summary),
                    std::string(m.name)});
  return rows;
}

const std::vector<Recipe>& table() {
  static const std::vector<Recipe> rows = with_mixtures({
      {"F32", "gguf", Method::rtn, DType::f32, DType::f32, DType::f32, "GGUF, all weights in 32-bit floats"},
      {"F16", "gguf", Method::rtn, DType::f16, DType::f16, DType::f16, "GGUF, all matrices in 16-bit floats"},
      {"BF16", "gguf", Method::rtn, DType::bf16, DType::bf16, DType::bf16, "GGUF, all matrices in bfloat16"},
      {"Q8_0", "gguf", Method::rtn, kQ8_0, kQ8_0, kQ8_0, "GGUF, 8.5 bits: next to no loss"},
      {"Q6_K", "gguf", Method::rtn, kQ6_K, kQ6_K, kQ6_K, "GGUF, 6.6 bits: little loss"},
      {"Q4_K", "gguf", Method::rtn, kQ4_K, kQ4_K, kQ6_K, "GGUF, 4.5 bits, head in q6_k: the usual size"},
      {"Q4_0", "gguf", Method::rtn, kQ4_0, kQ4_0, kQ6_K, "GGUF, 4.5 bits, head in q6_k: oldest and fastest"},
      {"gptq-int4-g128", "gptq", Method::gptq, affine(4, 128), {}, {}, "GPTQ, 4.2 bits: every runtime takes it"},
      {"gptq-int4-g32", "gptq", Method::gptq, affine(4, 32), {}, {}, "GPTQ, 4.6 bits: closer, a little larger"},
      {"gptq-int4-g128-asym", "gptq", Method::gptq, affine(4, 128, false), {}, {}, "GPTQ with zero points (not vLLM)"},
      {"gptq-int8-g128", "gptq", Method::gptq, affine(8, 128), {}, {}, "GPTQ, 8.2 bits"},
      {"gptq-int3-g128", "gptq", Method::gptq, affine(3, 128), {}, {}, "GPTQ, 3.1 bits (not vLLM)"},
      {"gptq-int2-g32-asym", "gptq", Method::gptq, affine(2, 32, false), {}, {}, "GPTQ, 2.6 bits (not vLLM)"},
      {"awq-int4-g128", "awq", Method::gptq, affine(4, 128, false), {}, {}, "AWQ files, 4.2 bits: every GPU runtime"},
      {"awq-int4-g32", "awq", Method::gptq, affine(4, 32, false), {}, {}, "AWQ files, 4.6 bits"},
      {"w4a16", "compressed-tensors", Method::gptq, affine(4, 128), {}, {}, "compressed-tensors, 4.1 bits: for vLLM"},
      {"w4a16-asym", "compressed-tensors", Method::gptq, affine(4, 128, false), {}, {}, "compressed-tensors, 4.2 bits"},
      {"w8a16", "compressed-tensors", Method::gptq, affine(8, 128), {}, {}, "compressed-tensors, 8.1 bits"},
      {"w8a8", "compressed-tensors-w8a8", Method::gptq, affine(8, 0), {}, {}, "int8 weights and activations, for vLLM"},
      {"fp8", "compressed-tensors-w8a8", Method::rtn, fp8(0, 1), {}, {}, "FP8 with a scale per row, for vLLM"},
      {"fp8-block", "compressed-tensors-w8a8", Method::rtn, fp8(128, 128), {}, {}, "FP8 in blocks of 128 x 128"},
      {"mxfp4", "compressed-tensors", Method::gptq, kMxfp4, {}, {}, "compressed-tensors, 4.3 bits in the OCP format"},
      {"nvfp4", "compressed-tensors", Method::gptq, kNvfp4, {}, {}, "compressed-tensors, 4.5 bits: for Blackwell GPUs"},
      {"nf4", "bnb", Method::rtn, bnb(CodebookSpec::Levels::nf4, false), {}, {}, "bitsandbytes, 4.5 bits"},
      {"nf4-dq", "bnb", Method::rtn, bnb(CodebookSpec::Levels::nf4, true), {}, {}, "bitsandbytes, 4.1 bits: QLoRA's"},
      {"nf4-gptq",
       "bnb",
       Method::gptq,
       bnb(CodebookSpec::Levels::nf4, false),
       {},
       {},
       "bitsandbytes, 4.5 bits, closer"},
      {"fp4", "bnb", Method::rtn, bnb(CodebookSpec::Levels::fp4, false), {}, {}, "bitsandbytes, 4.5 bits"},
      {"llm-int8", "bnb", Method::rtn, kLlmInt8, {}, {}, "bitsandbytes, 8 bits"},
      {"mlx-4bit", "mlx", Method::gptq, biased(4, 64), biased(4, 64), biased(4, 64), "MLX, 4.5 bits: for Apple"},
      {"mlx-8bit", "mlx", Method::gptq, biased(8, 64), biased(8, 64), biased(8, 64), "MLX, 8.5 bits"},
      {"mlx-mxfp4", "mlx", Method::gptq, kMxfp4, kMxfp4, kMxfp4, "MLX, 4.3 bits in the OCP format"},
      {"rtn-int4-g128", "gptq", Method::rtn, affine(4, 128), {}, {}, "GPTQ files, no calibration"},
      {"rtn-int8-g128", "gptq", Method::rtn, affine(8, 128), {}, {}, "GPTQ files, no calibration"},
  });
  return rows;
}

// Case does not matter, nor which of '-' and '_' is typed.
std::string folded(std::string_view name) {
  std::string out(name);
  for (char& c : out) c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::optional<int64_t> to_number(std::string_view text) {
  int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "int4_g128_asym" in pieces: int<bits>, g<columns> or row, sym or asym.
std::optional<Grid> parse_affine(std::string_view name) {
  if (name.empty()) return std::nullopt;
  AffineSpec spec;
  for (int part = 0; !name.empty(); ++part) {
    const size_t end = std::min(name.find('_'), name.size());
    const std::string_view word = name.substr(0, end);
    name.remove_prefix(std::min(end + 1, name.size()));
    if (part == 0) {
      const auto bits = word.starts_with("int") ? to_number(word.substr(3)) : std::nullopt;
      if (!bits || *bits < 2 || *bits > 8) return std::nullopt;
      spec.bits = static_cast<int>(*bits);
    } else if (word == "asym" || word == "sym") {
      spec.symmetric = word == "sym";
    } else if (word == "bias") {
      spec.biased = true, spec.symmetric = false;
    } else if (word == "row") {
      spec.group = 0;
    } else if (word == "tensor") {
      spec.group = 0, spec.rows = 0;
    } else {
      const auto group = word.starts_with("g") ? to_number(word.substr(1)) : std::nullopt;
      if (!group || *group < 1) return std::nullopt;
      spec.group = *group;
    }
  }
  return spec;
}

std::string known_recipes() {
  std::string out;
  for (const Recipe& r : table()) out += (out.empty() ? "" : ", ") + r.name;
  return out;
}

std::string known_grids() {
  std::string out;
  for (const auto grids : {named_grids(), shared_grids()})
    for (const Grid& grid : grids) out += name_of(grid) + ", ";
  return out;
}

}  // namespace

Target parse_target(std::string_view name) {
  const std::string key = folded(name);
  for (const auto grids : {named_grids(), shared_grids()})
    for (const Grid& grid : grids)
      if (key == folded(name_of(grid))) return grid;
  for (const DType type : {DType::f32, DType::f16, DType::bf16})
    if (key == info(type).name) return type;
  if (const auto grid = parse_affine(key)) return *grid;
  throw Error({.what = fmt::format("unknown grid \"{}\"", name),
               .where = "grid",
               .expected = known_grids() + "int<2…8>[-g<columns>|-row|-tensor][-sym|-asym|-bias], f32, f16 or bf16",
               .code = ExitCode::usage});
}

std::string name_of(const Target& target) {
  if (const Grid* grid = std::get_if<Grid>(&target)) return name_of(*grid);
  return std::string(info(std::get<DType>(target)).name);
}

Method parse_method(std::string_view name) {
  const std::string key = folded(name);
  if (key == "rtn") return Method::rtn;
  if (key == "gptq") return Method::gptq;
  for (const char* later : {"awq", "awq+gptq", "bnb_nf4", "bnb_fp4", "bnb_int8"})
    if (key == later)
      throw Error({.what = fmt::format("the method {} is not built yet", name),
                   .where = "--method",
                   .expected = "rtn or gptq",
                   .remedy = "use --method gptq for now",
                   .code = ExitCode::usage});
  throw Error({.what = fmt::format("unknown method \"{}\"", name),
               .where = "--method",
               .expected = "rtn or gptq",
               .code = ExitCode::usage});
}

std::string_view name_of(Method method) {
  switch (method) {
    case Method::rtn:
      return "rtn";
    case Method::gptq:
      return "gptq";
    case Method::convert:
      return "convert";
  }
  return "";
}

std::span<const Recipe> all_recipes() { return table(); }

const Recipe& find_recipe(std::string_view name) {
  for (const Recipe& r : table())
    if (folded(r.name) == folded(name)) return r;
  throw Error({.what = fmt::format("unknown recipe \"{}\"", name),
               .where = "--recipe",
               .expected = "one of " + known_recipes(),
               .remedy = "see `pare recipes`, or describe your own with --recipe-file",
               .code = ExitCode::usage});
}

Recipe read_recipe_file(const std::filesystem::path& path) {
  const Json json = read_json_file(path.string(), {.unique_keys = true});
  if (!json.is_object()) throw Error({.what = "a recipe is a JSON object", .where = path.string()});
  Recipe recipe{.name = path.stem().string(), .summary = {}};
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string())
      throw Error({.what = "a recipe's fields are strings", .where = path.string(), .got = key + ": " + value.dump()});
    const auto text = value.get<std::string>();
    if (key == "name")
      recipe.name = text;
    else if (key == "container")
      recipe.container = text;
    else if (key == "method")
      recipe.method = parse_method(text);
    else if (key == "linear")
      recipe.linear = parse_target(text);
    else if (key == "embedding")
      recipe.embedding = parse_target(text);
    else if (key == "head")
      recipe.head = parse_target(text);
    else if (key == "summary")
      recipe.summary = text;
    else
      throw Error({.what = fmt::format("a recipe has no field \"{}\"", key),
                   .where = path.string(),
                   .expected = "name, container, method, linear, embedding, head, summary"});
  }
  if (!json.contains("linear"))
    throw Error({.what = "the recipe does not say what the linear layers become",
                 .where = path.string(),
                 .expected = "a field \"linear\", such as \"q4_k\""});
  return recipe;
}

}  // namespace pare
