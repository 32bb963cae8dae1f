// compressed-tensors checkpoints. For W [N outputs x K inputs], b bits, G groups of columns:
//
//   pack-quantized   <module>.weight_packed     I32 [N, ceil(K·b/32)]  along the inputs, code = signed + 2^(b-1)
//                    <module>.weight_scale      f16, bf16 or f32 [N, G]
//                    <module>.weight_zero_point I32 [ceil(N·b/32), G]  along the outputs; absent: symmetric
//                    <module>.weight_shape      I64 [2] = N, K
//                    <module>.weight_g_idx      I32 [K]                group of each input; no longer written by anyone
//   int-quantized    <module>.weight            I8 [N, K]
//                    <module>.weight_scale      [N, 1], [N, G] or [1]
//                    <module>.weight_zero_point I8, as the scale; absent: symmetric
//
//   float-quantized, mxfp8-quantized, mxfp4-pack-quantized, nvfp4-pack-quantized: see float_layers.h, with the names
//                    weight or weight_packed, weight_scale, weight_global_scale
//
// value = scale (code - zero). Before 2026 codes of 3, 5, 6 and 7 bits filled words only as far as whole codes fit.
// Source: hf_checkpoints.md A.3.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "pare/base/error.h"
#include "pare/container/bit_packing.h"
#include "pare/container/ct_config.h"
#include "pare/container/float_layers.h"
#include "pare/container/hf_format.h"

namespace pare {
namespace {

bool holds_floats(const Grid& grid) { return std::holds_alternative<CodebookSpec>(grid); }

// ---- reading

enum Part : size_t { kWeight, kScale, kZero, kShape, kOrder };

class CtReader : public HfReader {
 public:
  explicit CtReader(const HfFiles& files) : widths_(ct_widths(files)) {
    layers_ =
        find_layers(files, {{"weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"},
                            2,
                            [](const StoredTensor& t) { return t.type == "i32"; }});
    layers_.merge(find_layers(files, {{"weight", "weight_scale", "weight_zero_point"}, 2, [](const StoredTensor& t) {
                                        return t.type == "i8";
                                      }}));
    layers_.merge(
        find_layers(files, {{"weight", "weight_scale"}, 2, [](const StoredTensor& t) { return t.type == "f8_e4m3"; }}));
    layers_.merge(find_layers(files, {{"weight_packed", "weight_scale", "weight_global_scale"},
                                      2,
                                      [](const StoredTensor& t) { return t.type == "u8"; }}));
    format_ = text_of(files.quantization, "format");
    block_ = ct_block(files);
  }

  std::string convention() const override {
    return format_.empty() ? "compressed-tensors" : "compressed-tensors " + format_;
  }
  Shape shape(const HfLayer& layer) const override {
    return is_float(layer) ? floats(layer).shape : layout(layer).shape;
  }
  Grid grid(const HfLayer& layer) const override {
    if (is_float(layer)) return floats(layer).spec;
    return layout(layer).spec;
  }

  Quantized load(const HfLayer& layer) const override {
    if (is_float(layer)) return load_float_layer(floats(layer));
    const Layout l = layout(layer);
    Quantized q(l.spec, l.shape);
    auto& affine = std::get<Affine>(q.params);
    load_scales(*layer.parts[kScale], affine.scale);
    if (layer.parts[kZero]) load_zeros(layer, l, affine.zero);
    load_codes(layer, l, q.codes);
    if (layer.parts.size() > kOrder && layer.parts[kOrder]) {
      q.order = order_from_groups(*layer.parts[kOrder], affine.scale.rows(), l.shape.cols);
      q.codes = gathered(q.codes, q.order);
    }
    return q;
  }

 private:
  struct Layout {
    Shape shape;
    AffineSpec spec;
    bool dense = true;  // codes may straddle words
  };

  static bool is_float(const HfLayer& layer) {
    return layer.parts[kWeight]->type == "f8_e4m3" || layer.parts[kWeight]->type == "u8";
  }
  FloatLayer floats(const HfLayer& layer) const {
    const StoredTensor* global = layer.parts.size() > 2 ? layer.parts[2] : nullptr;
    return float_layer(*layer.parts[kWeight], *layer.parts[kScale], global, block_);
  }
  static bool is_packed(const HfLayer& layer) { return layer.parts[kWeight]->type == "i32"; }

  Layout layout(const HfLayer& layer) const {
    const StoredTensor &weight = *layer.parts[kWeight], &scale = *layer.parts[kScale];
    Layout l;
    require_tensor(weight, "", 2);
    if (is_packed(layer))
      layout_packed(layer, l);
    else
      l.shape = {weight.shape[0], weight.shape[1]}, l.spec.bits = 8;
    l.spec.symmetric = !layer.parts[kZero];
    l.spec.scale = scale_kind(scale_type(scale));
    layout_groups(scale, l);
    if (layer.parts[kZero]) {
      const int64_t groups = l.shape.cols / l.spec.group;
      if (is_packed(layer))
        require_shape(*layer.parts[kZero], "i32", {packed_words(l.spec.bits, l.shape.rows), groups});
      else
        require_shape(*layer.parts[kZero], "i8", scale.shape);
    }
    return l;
  }

  void layout_packed(const HfLayer& layer, Layout& l) const {
    const StoredTensor& words = *layer.parts[kWeight];
    if (!layer.parts[kShape])
      refuse_tensor(words, "the layer does not say its shape", layer.module + ".weight_shape", "no such tensor");
    const StoredTensor& stated = *layer.parts[kShape];
    require_shape(stated, "i64", {2});
    int64_t numbers[2];
    std::memcpy(numbers, stated.bytes.data(), sizeof numbers);
    if (numbers[0] != words.shape[0] || numbers[1] <= 0 || numbers[1] > 32 * words.shape[1])
      refuse_tensor(stated, "the stated shape does not fit the codes", fmt::format("[{}, columns]", words.shape[0]),
                    fmt::format("[{}, {}]", numbers[0], numbers[1]));
    l.shape = {numbers[0], numbers[1]};
    for (const int bits : widths_)
      for (const bool dense : {true, false}) {
        const int64_t per_word = 32 / bits;
        const int64_t expected = dense ? packed_words(bits, l.shape.cols) : (l.shape.cols + per_word - 1) / per_word;
        if (expected != words.shape[1]) continue;
        l.spec.bits = bits, l.dense = dense;
        return;
      }
    refuse_tensor(words, "the codes have another width than the config says",
                  fmt::format("words for {} columns of {} bits", l.shape.cols, fmt::join(widths_, " or ")),
                  fmt::format("{} words", words.shape[1]));
  }

  static void layout_groups(const StoredTensor& scale, Layout& l) {
    const bool whole = scale.shape.empty() || scale.shape == std::vector<int64_t>{1};
    if (whole) {
      l.spec.rows = 0, l.spec.group = l.shape.cols;
      return;
    }
    require_shape(scale, "", {l.shape.rows, scale.shape.back()});
    if (l.shape.cols % scale.shape[1] != 0)
      refuse_tensor(scale, "the groups do not divide the columns", fmt::format("a divisor of {}", l.shape.cols),
                    fmt::format("{} groups", scale.shape[1]));
    l.spec.group = l.shape.cols / scale.shape[1];
  }

  // Stored rows x groups, or one for all.
  static void load_scales(const StoredTensor& t, Plane<float>& scale) {
    std::vector<float> values(static_cast<size_t>(matrix_shape(t.shape).size()));
    read_scales(t, values);
    for (int64_t g = 0; g < scale.rows(); ++g)
      for (int64_t r = 0; r < scale.cols(); ++r)
        scale(g, r) = values.size() == 1 ? values[0] : values[static_cast<size_t>(r * scale.rows() + g)];
  }

  static void load_zeros(const HfLayer& layer, const Layout& l, Plane<uint8_t>& zero) {
    const StoredTensor& t = *layer.parts[kZero];
    if (is_packed(layer)) {
      // Words stand below each other, one column per group.
      std::vector<std::byte> turned(t.bytes.size());
      const int64_t words = t.shape[0], groups = t.shape[1];
      for (int64_t w = 0; w < words; ++w)
        for (int64_t g = 0; g < groups; ++g)
          std::memcpy(turned.data() + 4 * (g * words + w), t.bytes.data() + 4 * (w * groups + g), 4);
      unpack_rows(l.spec.bits, turned, zero);
      return;
    }
    for (int64_t g = 0; g < zero.rows(); ++g)
      for (int64_t r = 0; r < zero.cols(); ++r) {
        const auto at = static_cast<size_t>(t.bytes.size() == 1 ? 0 : r * zero.rows() + g);
        zero(g, r) = static_cast<uint8_t>(std::to_integer<int>(t.bytes[at]) ^ 128);  // signed + 128
      }
  }

  static void load_codes(const HfLayer& layer, const Layout& l, Plane<uint8_t>& codes) {
    const auto bytes = layer.parts[kWeight]->bytes;
    if (!is_packed(layer)) {
      for (int64_t i = 0; i < codes.size(); ++i)
        codes.data()[i] = static_cast<uint8_t>(std::to_integer<int>(bytes[static_cast<size_t>(i)]) ^ 128);
    } else if (l.dense) {
      unpack_rows(l.spec.bits, bytes, codes);
    } else {
      unpack_whole_codes(l.spec.bits, bytes, codes);
    }
  }

  // floor(32 / bits) codes per word, the highest bits of each unused.
  static void unpack_whole_codes(int bits, std::span<const std::byte> bytes, Plane<uint8_t>& codes) {
    const int64_t per_word = 32 / bits, words = (codes.cols() + per_word - 1) / per_word;
    for (int64_t r = 0; r < codes.rows(); ++r)
      for (int64_t c = 0; c < codes.cols(); ++c) {
        uint32_t word;
        std::memcpy(&word, bytes.data() + 4 * (r * words + c / per_word), 4);
        codes(r, c) = static_cast<uint8_t>(word >> (bits * (c % per_word)) & ((1u << bits) - 1));
      }
  }

  std::vector<int> widths_;
  std::string format_;
  int64_t block_ = 128;
};

bool matches(const HfFiles& files) { return files.method() == "compressed-tensors"; }
std::unique_ptr<HfReader> open(const HfFiles& files) { return std::make_unique<CtReader>(files); }

// ---- writing

Verdict refuse_order() {
  return {{},
          "compressed-tensors no longer stores an order of the columns",
          "visit the columns by importance without storing the order"};
}

Verdict accept_float(const CodebookSpec& spec, bool ordered) {
  if (!is_float_grid(spec))
    return {{},
            "compressed-tensors hold 8-bit and 4-bit floats in their own groups",
            "choose fp8, fp8-tensor, fp8-block, mxfp8, mxfp4 or nvfp4"};
  if (ordered) return refuse_order();
  CodebookSpec narrowed = spec;
  narrowed.block = 0;
  narrowed.global = spec.scale == ScaleKind::ue4m3;
  return {narrowed, "", ""};
}

Verdict accept_packed(const Grid& wanted, bool ordered) {
  if (const auto* floats = std::get_if<CodebookSpec>(&wanted)) return accept_float(*floats, ordered);
  const auto* spec = std::get_if<AffineSpec>(&wanted);
  if (!spec || spec->biased || spec->rows != 1)
    return {
        {}, "pack-quantized files hold integer codes in groups of a row", "choose an integer grid such as int4-g128"};
  if (ordered) return refuse_order();
  AffineSpec narrowed = *spec;
  narrowed.lowest_zero = 0;
  return {narrowed, "", ""};
}

Verdict accept_bytes(const Grid& wanted, bool ordered) {
  if (const auto* floats = std::get_if<CodebookSpec>(&wanted)) {
    if (floats->levels != CodebookSpec::Levels::e4m3 || floats->scale == ScaleKind::e8m0)
      return {{},
              "activations are rounded to bytes here, and so are weights",
              "choose fp8, fp8-tensor, fp8-block or int8-row"};
    return accept_float(*floats, ordered);
  }
  const auto* spec = std::get_if<AffineSpec>(&wanted);
  if (!spec || spec->biased || spec->bits != 8 || (spec->group != 0 && spec->rows == 0) || !spec->symmetric)
    return {{}, "int-quantized files hold 8-bit codes with a scale per row or for the whole matrix", "choose int8-row"};
  if (ordered) return refuse_order();
  return {*spec, "", ""};
}

// Readers hold scales in the type of the model's floats.
Verdict place(const Grid& accepted, Shape, DType floats) {
  Grid grid = accepted;
  if (auto* spec = std::get_if<AffineSpec>(&grid)) spec->scale = scale_kind(floats);
  if (auto* spec = std::get_if<CodebookSpec>(&grid); spec && spec->scale != ScaleKind::e8m0 && !spec->global)
    spec->scale = scale_kind(floats);
  return {grid, "", ""};
}

std::string float_name(const std::string& module, const CodebookSpec& spec) {
  return module + (spec.levels == CodebookSpec::Levels::e2m1 ? ".weight_packed" : ".weight");
}

int64_t groups_of(const AffineSpec& spec, int64_t cols) { return spec.group == 0 ? 1 : cols / spec.group; }

std::vector<SafetensorsSlot> slots_float(const OutputTensor& t) {
  const auto& spec = std::get<CodebookSpec>(*t.grid);
  const FloatTensors floats = float_tensors(spec, {t.shape[0], t.shape[1]});
  const std::string module = module_of_weight(t.name);
  std::vector<SafetensorsSlot> out = {{float_name(module, spec), floats.codes_type, floats.codes_shape},
                                      {module + ".weight_scale", floats.scales_type, floats.scales_shape}};
  if (spec.global) out.push_back({module + ".weight_global_scale", DType::f32, {1}});
  return out;
}

std::vector<HfPart> encode_float(const OutputTensor& t, const Quantized& q) {
  const auto& book = std::get<Codebook>(q.params);
  const std::string module = module_of_weight(t.name);
  std::vector<HfPart> out = {{float_name(module, book.spec), float_codes(q)},
                             {module + ".weight_scale", float_scales(q)}};
  if (book.spec.global) out.push_back({module + ".weight_global_scale", bytes_of(&book.divisor, 4)});
  return out;
}

std::vector<SafetensorsSlot> slots_packed(const OutputTensor& t) {
  if (holds_floats(*t.grid)) return slots_float(t);
  const auto& spec = std::get<AffineSpec>(*t.grid);
  const int64_t rows = t.shape[0], cols = t.shape[1], groups = groups_of(spec, cols);
  const std::string module = module_of_weight(t.name);
  std::vector<SafetensorsSlot> out = {{module + ".weight_packed", DType::i32, {rows, packed_words(spec.bits, cols)}},
                                      {module + ".weight_scale", scale_dtype(spec.scale), {rows, groups}},
                                      {module + ".weight_shape", DType::i64, {2}}};
  if (!spec.symmetric)
    out.push_back({module + ".weight_zero_point", DType::i32, {packed_words(spec.bits, rows), groups}});
  return out;
}

std::vector<SafetensorsSlot> slots_bytes(const OutputTensor& t) {
  if (holds_floats(*t.grid)) return slots_float(t);
  const auto& spec = std::get<AffineSpec>(*t.grid);
  const std::string module = module_of_weight(t.name);
  const int64_t rows = t.shape[0], groups = groups_of(spec, t.shape[1]);
  const auto scales = spec.rows == 0 ? std::vector<int64_t>{1} : std::vector<int64_t>{rows, groups};
  return {{module + ".weight", DType::i8, t.shape}, {module + ".weight_scale", scale_dtype(spec.scale), scales}};
}

// rows x groups, or one for all.
std::vector<std::byte> scale_bytes(const Affine& affine) {
  const Plane<float>& s = affine.scale;
  std::vector<float> values;
  if (affine.spec.rows == 0)
    values = {s(0, 0)};
  else
    for (int64_t r = 0; r < s.cols(); ++r)
      for (int64_t g = 0; g < s.rows(); ++g) values.push_back(s(g, r));
  return bytes_as(scale_dtype(affine.spec.scale), values);
}

std::vector<std::byte> zero_bytes(const Affine& affine) {
  const int64_t groups = affine.zero.rows(), words = packed_words(affine.spec.bits, affine.zero.cols());
  std::vector<std::byte> rows(static_cast<size_t>(4 * groups * words)), out(rows.size());
  pack_rows(affine.spec.bits, affine.zero, rows);
  for (int64_t w = 0; w < words; ++w)
    for (int64_t g = 0; g < groups; ++g)
      std::memcpy(out.data() + 4 * (w * groups + g), rows.data() + 4 * (g * words + w), 4);
  return out;
}

std::vector<HfPart> encode_packed(const OutputTensor& t, const Quantized& q) {
  if (holds_floats(q.grid())) return encode_float(t, q);
  const auto& affine = std::get<Affine>(q.params);
  const std::string module = module_of_weight(t.name);
  std::vector<std::byte> words(
      static_cast<size_t>(4 * q.codes.rows() * packed_words(affine.spec.bits, q.codes.cols())));
  pack_rows(affine.spec.bits, q.codes, words);
  const int64_t shape[2] = {q.shape().rows, q.shape().cols};
  std::vector<HfPart> out = {{module + ".weight_packed", std::move(words)},
                             {module + ".weight_scale", scale_bytes(affine)},
                             {module + ".weight_shape", bytes_of(shape, sizeof shape)}};
  if (!affine.spec.symmetric) out.push_back({module + ".weight_zero_point", zero_bytes(affine)});
  return out;
}

std::vector<HfPart> encode_bytes(const OutputTensor& t, const Quantized& q) {
  if (holds_floats(q.grid())) return encode_float(t, q);
  const std::string module = module_of_weight(t.name);
  std::vector<std::byte> codes(static_cast<size_t>(q.codes.size()));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = std::byte{q.codes.data()[i]} ^ std::byte{128};
  return {{module + ".weight", std::move(codes)}, {module + ".weight_scale", scale_bytes(std::get<Affine>(q.params))}};
}

std::vector<RuntimeVerdict> runtimes(const OutputPlan&) {
  return {{"vllm", true}, {"transformers", true, "through the compressed-tensors package"}};
}

}  // namespace

const HfFormat kCtFormat{.name = "compressed-tensors",
                         .matches = matches,
                         .open = open,
                         .accept = accept_packed,
                         .place = place,
                         .slots = slots_packed,
                         .encode = encode_packed,
                         .config = ct_config<CtActivations::floats>,
                         .runtimes = runtimes};
const HfFormat kCtW8A8Format{.name = "compressed-tensors-w8a8",
                             .accept = accept_bytes,
                             .place = place,
                             .slots = slots_bytes,
                             .encode = encode_bytes,
                             .config = ct_config<CtActivations::bytes>,
                             .runtimes = runtimes};

}  // namespace pare
