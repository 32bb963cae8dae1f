// bitsandbytes checkpoints. For W [N outputs x K inputs] and blocks of B weights of the matrix, row after row:
//
//   NF4, FP4   <module>.weight                  [ceil(N·K/2), 1] U8, or the same bytes as wider numbers; two codes a
//                                               byte, the first in the high half
//              <module>.weight.absmax           F32 [blocks]; U8 where nested
//              <module>.weight.quant_map        F32 [16]
//              <module>.weight.nested_absmax    F32 [ceil(blocks/256)]     nested only
//              <module>.weight.nested_quant_map F32 [256]                  nested only
//              <module>.weight.quant_state.bitsandbytes__nf4 (__fp4)       U8: JSON
//   LLM.int8   <module>.weight                  I8 [N, K]
//              <module>.SCB                     F32 [N]
//              <module>.weight_format           U8 [], 0
//
// value = quant_map[code] absmax; nested: absmax = map[code] nested_absmax + offset. LLM.int8: code SCB / 127.
// Source: formats.md §1.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "pare/base/error.h"
#include "pare/base/json.h"
#include "pare/container/bit_packing.h"
#include "pare/container/code_maps.h"
#include "pare/container/hf_format.h"

namespace pare {
namespace {

using Levels = CodebookSpec::Levels;

constexpr RowOrder8 kHighFirst{{1, 0, 3, 2, 5, 4, 7, 6}};
constexpr std::string_view kState = ".quant_state.bitsandbytes__";

// ---- reading

enum Part : size_t { kWeight, kAbsmax, kMap, kNestedAbsmax, kNestedMap, kJson };
enum Int8Part : size_t { kCodes, kScb, kFormat };

// What the JSON of a 4-bit layer says.
struct State {
  Levels levels = Levels::nf4;
  int64_t block = 64;
  Shape shape;
  bool nested = false;
  float offset = 0;

  int64_t blocks() const { return (shape.size() + block - 1) / block; }
  // Blocks run over the ends of rows where the columns are no multiple of them: then the columns of one row that are
  // sure to share a block.
  int64_t group() const { return std::gcd(block, shape.cols); }
  bool whole_rows() const { return shape.cols % block == 0; }
};

class BnbReader : public HfReader {
 public:
  explicit BnbReader(const HfFiles& files) {
    for (const StoredTensor& t : files.tensors) {
      const size_t at = t.name.find(kState);
      if (at == std::string::npos || !t.name.substr(0, at).ends_with(".weight")) continue;
      const std::string weight = t.name.substr(0, at);
      HfLayer layer{module_of_weight(weight), {files.find(weight)}};
      for (const char* part : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"})
        layer.parts.push_back(files.find(weight + part));
      layer.parts.push_back(&t);
      for (const Part needed : {kWeight, kAbsmax, kMap})
        if (!layer.parts[needed])
          refuse_tensor(t, "a quantized layer is incomplete", "weight, absmax and quant_map", "not all of them");
      if (!layers_.emplace(weight, std::move(layer)).second)
        refuse_tensor(t, "the layer has two quantization states", "one", "two");
    }
    for (auto& [name, layer] : find_layers(files, {{"SCB", "weight", "weight_format"}, 2})) {
      std::swap(layer.parts[kCodes], layer.parts[kScb]);
      layers_.emplace(name, layer);
    }
  }

  std::string convention() const override { return "bitsandbytes"; }
  Shape shape(const HfLayer& layer) const override {
    if (is_int8(layer)) return check_int8(layer);
    return state_of(layer).shape;
  }
  Grid grid(const HfLayer& layer) const override {
    if (is_int8(layer)) return CodebookSpec{Levels::int8, ScaleKind::f32, check_int8(layer).cols, 0};
    const State s = state_of(layer);
    return CodebookSpec{
        .levels = s.levels, .scale = ScaleKind::f32, .group = s.group(), .nested = s.nested && s.whole_rows()};
  }
  Quantized load(const HfLayer& layer) const override {
    Quantized q(grid(layer), shape(layer));
    is_int8(layer) ? load_int8(layer, q) : load_4bit(layer, state_of(layer), q);
    return q;
  }

 private:
  static bool is_int8(const HfLayer& layer) { return layer.parts.size() == 3; }

  static Shape check_int8(const HfLayer& layer) {
    const StoredTensor& codes = *layer.parts[kCodes];
    require_tensor(codes, "i8", 2);
    require_shape(*layer.parts[kScb], "f32", {codes.shape[0]});
    const StoredTensor* format = layer.parts[kFormat];
    if (format && (format->bytes.size() != 1 || format->bytes[0] != std::byte{0}))
      refuse_tensor(*format, "the codes are in a layout of certain GPUs", "0 (row-major)", "another number",
                    "load the model and save it again with a newer bitsandbytes");
    return {codes.shape[0], codes.shape[1]};
  }
  static void load_int8(const HfLayer& layer, Quantized& q) {
    read_scales(*layer.parts[kScb], std::get<Codebook>(q.params).scale.values());
    std::memcpy(q.codes.data(), layer.parts[kCodes]->bytes.data(), layer.parts[kCodes]->bytes.size());
    to_levels(code_map(Levels::int8), *layer.parts[kCodes], q.codes);
  }

  static State state_of(const HfLayer& layer) {
    const StoredTensor& t = *layer.parts[kJson];
    const Json json = parse_json({reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size()}, t.name);
    State s;
    const std::string type = text_of(json, "quant_type");
    if (type != "nf4" && type != "fp4") refuse_tensor(t, "unknown type of codes", "nf4 or fp4", type);
    s.levels = type == "nf4" ? Levels::nf4 : Levels::fp4;
    s.block = integer_of(json, "blocksize", 0);
    if (s.block < 1 || s.block > 1 << 16)
      refuse_tensor(t, "the block size makes no sense", "32 to 4096", std::to_string(s.block));
    const auto shape = json.find("shape");
    const bool is_shape = json.is_object() && shape != json.end() && shape->is_array() && shape->size() == 2 &&
                          (*shape)[0].is_number_unsigned() && (*shape)[1].is_number_unsigned();
    if (!is_shape) refuse_tensor(t, "the state does not say the shape", "\"shape\": [outputs, inputs]", json.dump());
    s.shape = {(*shape)[0].get<int64_t>(), (*shape)[1].get<int64_t>()};
    s.nested = layer.parts[kNestedAbsmax] != nullptr;
    if (s.nested) s.offset = read_nested(layer, json);
    check_sizes(layer, s);
    return s;
  }

  static float read_nested(const HfLayer& layer, const Json& json) {
    const StoredTensor& t = *layer.parts[kJson];
    const int64_t block = integer_of(json, "nested_blocksize", 0);
    if (block != Codebook::Nested::kBlock)
      refuse_tensor(t, "the nested block size is not the one that all readers assume",
                    std::to_string(Codebook::Nested::kBlock), std::to_string(block));
    const auto offset = json.find("nested_offset");
    if (offset == json.end() || !offset->is_number() || !std::isfinite(offset->get<float>()))
      refuse_tensor(t, "the state does not say the nested offset", "\"nested_offset\": a number", json.dump());
    if (!layer.parts[kNestedMap])
      refuse_tensor(t, "a quantized layer is incomplete", layer.module + ".weight.nested_quant_map", "no such tensor");
    return offset->get<float>();
  }

  static void check_sizes(const HfLayer& layer, const State& s) {
    const StoredTensor& weight = *layer.parts[kWeight];
    const auto bytes = static_cast<int64_t>(weight.bytes.size());
    constexpr int64_t kMost = int64_t{1} << 40;
    if (s.shape.rows < 1 || s.shape.cols < 1 || s.shape.rows > kMost / s.shape.cols ||
        bytes != (s.shape.size() + 1) / 2)
      refuse_tensor(weight, "the codes do not fit the shape",
                    fmt::format("half a byte for each of {} x {}", s.shape.rows, s.shape.cols),
                    fmt::format("{} bytes", bytes));
    require_shape(*layer.parts[kAbsmax], s.nested ? "u8" : "f32", {s.blocks()});
    require_shape(*layer.parts[kMap], "f32", {16});
    if (!s.nested) return;
    require_shape(*layer.parts[kNestedAbsmax], "f32", {(s.blocks() + 255) / 256});
    require_shape(*layer.parts[kNestedMap], "f32", {256});
  }

  static void check_map(const HfLayer& layer, Levels levels) {
    std::vector<float> map(16);
    read_scales(*layer.parts[kMap], map);
    for (size_t code = 0; code < map.size(); ++code) {
      const float expected = level_table(levels).level[code_map(levels).level[code]];
      if (map[code] != expected)
        refuse_tensor(*layer.parts[kMap], "the code table is not the usual one",
                      fmt::format("{} for code {}", expected, code), fmt::format("{}", map[code]),
                      "such files are not supported");
    }
  }

  static void load_4bit(const HfLayer& layer, const State& s, Quantized& q) {
    check_map(layer, s.levels);
    auto& book = std::get<Codebook>(q.params);
    const std::vector<float> absmax = s.nested ? nested_absmax(layer, s, book.nested) : plain_absmax(layer, s);
    if (!s.whole_rows()) book.nested = {};
    for (int64_t r = 0; r < s.shape.rows; ++r)
      for (int64_t g = 0; g < book.scale.rows(); ++g)
        book.scale(g, r) = absmax[static_cast<size_t>((r * s.shape.cols + g * s.group()) / s.block)];
    // One long row.
    Plane<uint8_t> codes(1, s.shape.size());
    unpack_rows(4, layer.parts[kWeight]->bytes, codes, kHighFirst);
    std::copy(codes.values().begin(), codes.values().end(), q.codes.data());
    to_levels(code_map(s.levels), *layer.parts[kWeight], q.codes);
  }
  static std::vector<float> plain_absmax(const HfLayer& layer, const State& s) {
    std::vector<float> out(static_cast<size_t>(s.blocks()));
    read_scales(*layer.parts[kAbsmax], out);
    return out;
  }
  static std::vector<float> nested_absmax(const HfLayer& layer, const State& s, Codebook::Nested& n) {
    n.offset = s.offset;
    n.map.resize(256);
    read_scales(*layer.parts[kNestedMap], n.map);
    n.absmax.resize(static_cast<size_t>((s.blocks() + 255) / 256));
    read_scales(*layer.parts[kNestedAbsmax], n.absmax);
    n.codes.resize(static_cast<size_t>(s.blocks()));
    std::memcpy(n.codes.data(), layer.parts[kAbsmax]->bytes.data(), n.codes.size());
    std::vector<float> out(n.codes.size());
    for (size_t b = 0; b < out.size(); ++b) out[b] = n.map[n.codes[b]] * n.absmax[b / 256] + n.offset;
    return out;
  }
};

bool matches(const HfFiles& files) {
  if (!files.method().empty()) return files.method() == "bitsandbytes";
  return std::any_of(files.tensors.begin(), files.tensors.end(),
                     [](const StoredTensor& t) { return t.name.find(kState) != std::string::npos; });
}
std::unique_ptr<HfReader> open(const HfFiles& files) { return std::make_unique<BnbReader>(files); }

// ---- writing

Verdict accept(const Grid& wanted, bool ordered) {
  const auto* spec = std::get_if<CodebookSpec>(&wanted);
  const bool known =
      spec && (spec->levels == Levels::nf4 || spec->levels == Levels::fp4 || spec->levels == Levels::int8);
  if (!known || spec->rows != 1 || spec->global || (spec->levels == Levels::int8 ? spec->nested : spec->group == 0))
    return {{},
            "bitsandbytes files hold NF4 or FP4 codes in blocks, or bytes with a scale per row",
            "choose nf4, nf4-dq, fp4, fp4-dq or llm-int8"};
  if (ordered)
    return {{},
            "bitsandbytes cannot store an order of the columns",
            "visit the columns by importance without storing the order"};
  CodebookSpec narrowed = *spec;
  narrowed.scale = ScaleKind::f32;
  return {narrowed, "", ""};
}

const char* type_name(Levels levels) { return levels == Levels::nf4 ? "nf4" : "fp4"; }

// As Python's json.dumps spells it, and as long for every offset.
std::string state_text(const OutputTensor& t, const CodebookSpec& spec, float offset) {
  const auto* floats = t.dtype == DType::bf16 ? "bfloat16" : t.dtype == DType::f32 ? "float32" : "float16";
  std::string out = fmt::format(R"({{"quant_type": "{}", "blocksize": {}, "dtype": "{}", "shape": [{}, {}])",
                                type_name(spec.levels), spec.group, floats, t.shape[0], t.shape[1]);
  if (spec.nested) {
    const std::string number = fmt::format("{}", static_cast<double>(offset));
    out += fmt::format(R"(, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": {}}})", number);
    return out + std::string(number.size() < 24 ? 24 - number.size() : 0, ' ');
  }
  return out + "}";
}

std::string state_name(const std::string& weight, Levels levels) {
  return weight + std::string(kState) + type_name(levels);
}

std::vector<SafetensorsSlot> slots(const OutputTensor& t) {
  const auto& spec = std::get<CodebookSpec>(*t.grid);
  const std::string &w = t.name, module = module_of_weight(w);
  if (spec.levels == Levels::int8)
    return {{w, DType::i8, t.shape},
            {module + ".SCB", DType::f32, {t.shape[0]}},
            {module + ".weight_format", DType::u8, {}}};
  const int64_t size = t.shape[0] * t.shape[1], blocks = size / spec.group;
  const auto text = static_cast<int64_t>(state_text(t, spec, 0).size());
  std::vector<SafetensorsSlot> out = {{w, DType::u8, {(size + 1) / 2, 1}},
                                      {w + ".absmax", spec.nested ? DType::u8 : DType::f32, {blocks}},
                                      {w + ".quant_map", DType::f32, {16}},
                                      {state_name(w, spec.levels), DType::u8, {text}}};
  if (spec.nested) {
    out.push_back({w + ".nested_absmax", DType::f32, {(blocks + 255) / 256}});
    out.push_back({w + ".nested_quant_map", DType::f32, {256}});
  }
  return out;
}

std::vector<float> quant_map(Levels levels) {
  std::vector<float> out;
  for (size_t code = 0; code < 16; ++code) out.push_back(level_table(levels).level[code_map(levels).level[code]]);
  return out;
}

std::vector<HfPart> encode(const OutputTensor& t, const Quantized& q) {
  const auto& book = std::get<Codebook>(q.params);
  const CodebookSpec& spec = book.spec;
  const std::string &w = t.name, module = module_of_weight(w);
  Plane<uint8_t> codes = q.codes;
  to_codes(code_map(spec.levels), codes);
  if (spec.levels == Levels::int8)
    return {{w, bytes_of(codes.data(), static_cast<size_t>(codes.size()))},
            {module + ".SCB", bytes_as(DType::f32, book.scale.values())},
            {module + ".weight_format", std::vector<std::byte>(1)}};

  Plane<uint8_t> flat(1, codes.size());
  std::copy(codes.values().begin(), codes.values().end(), flat.data());
  std::vector<std::byte> packed(static_cast<size_t>((flat.size() + 1) / 2));
  pack_rows(4, flat, packed, kHighFirst);
  std::vector<float> absmax;
  for (int64_t r = 0; r < q.shape().rows; ++r)
    for (int64_t g = 0; g < book.scale.rows(); ++g) absmax.push_back(book.scale(g, r));
  const std::string text = state_text(t, spec, book.nested.offset);
  std::vector<HfPart> out = {{w, std::move(packed)},
                             {w + ".absmax", spec.nested ? bytes_of(book.nested.codes.data(), book.nested.codes.size())
                                                         : bytes_as(DType::f32, absmax)},
                             {w + ".quant_map", bytes_as(DType::f32, quant_map(spec.levels))},
                             {state_name(w, spec.levels), bytes_of(text.data(), text.size())}};
  if (spec.nested) {
    out.push_back({w + ".nested_absmax", bytes_as(DType::f32, book.nested.absmax)});
    out.push_back({w + ".nested_quant_map", bytes_as(DType::f32, book.nested.map)});
  }
  return out;
}

// The config has one word for all layers.
struct Kind {
  Levels levels;
  bool nested;
  bool operator==(const Kind&) const = default;
};
Kind kind_of(const OutputPlan& plan) {
  std::optional<Kind> kind;
  std::string first;
  for (const OutputTensor& t : plan.tensors) {
    if (!t.grid) continue;
    const auto& spec = std::get<CodebookSpec>(*t.grid);
    const Kind own{spec.levels, spec.nested};
    if (kind && *kind != own)
      throw Error({.what = "bitsandbytes files have one kind of codes for all layers",
                   .where = t.name,
                   .expected = first,
                   .got = name_of(*t.grid),
                   .remedy = "choose one of nf4, nf4-dq, fp4, fp4-dq and llm-int8"});
    if (!kind) kind = own, first = name_of(*t.grid);
  }
  return kind.value_or(Kind{Levels::nf4, false});
}

Json config(const OutputPlan& plan, const HfWritten&) {
  const Kind kind = kind_of(plan);
  const bool bytes = kind.levels == Levels::int8;
  std::vector<std::string> skipped = modules_kept_float(plan);
  const bool head = std::any_of(plan.tensors.begin(), plan.tensors.end(),
                                [](const OutputTensor& t) { return t.grid && t.name == "lm_head.weight"; });
  // A list replaces the default, which is the head.
  if (!skipped.empty() && !head) skipped.emplace_back("lm_head");
  const Json skip = head || !skipped.empty() ? Json(skipped) : Json();
  const std::string floats =
      text_of(plan.config, "torch_dtype").empty() ? text_of(plan.config, "dtype") : text_of(plan.config, "torch_dtype");
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", !bytes},
          {"load_in_8bit", bytes},
          {"_load_in_4bit", !bytes},
          {"_load_in_8bit", bytes},
          {"llm_int8_threshold", 6.0},
          {"llm_int8_skip_modules", skip},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_has_fp16_weight", false},
          {"bnb_4bit_quant_type", bytes ? "fp4" : type_name(kind.levels)},
          {"bnb_4bit_use_double_quant", kind.nested},
          {"bnb_4bit_compute_dtype", floats.empty() || bytes ? "float32" : floats},
          {"bnb_4bit_quant_storage", "uint8"}};
}

std::vector<RuntimeVerdict> runtimes(const OutputPlan&) {
  return {{"transformers", true, "through the bitsandbytes package"},
          {"vllm", true, "through the bitsandbytes package"}};
}

}  // namespace

const HfFormat kBnbFormat{.name = "bnb",
                          .matches = matches,
                          .open = open,
                          .accept = accept,
                          .slots = slots,
                          .encode = encode,
                          .config = config,
                          .runtimes = runtimes};

}  // namespace pare
