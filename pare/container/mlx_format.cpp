// MLX checkpoints. For W [N outputs x K inputs], b bits, G groups of columns:
//
//   affine   <module>.weight U32 [N, K·b/32]   along the inputs
//            <module>.scales, .biases [N, G]   f16, bf16 or f32
//   mxfp4    <module>.weight U32 [N, K/8]      E2M1 numbers
//            <module>.scales U8 [N, K/32]      powers of two, 127 is 1
//
// value = scale code + bias. Embeddings may be quantized too. config.json says the group size and the bits of all
// layers under "quantization", with exceptions by name. Source: the files of mlx-community as mlx-lm writes them.
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "pare/base/error.h"
#include "pare/container/bit_packing.h"
#include "pare/container/code_maps.h"
#include "pare/container/float_layers.h"
#include "pare/container/hf_format.h"

namespace pare {
namespace {

constexpr int64_t kMxGroup = 32;
bool is_width(int64_t bits) { return bits >= 2 && bits <= 8 && bits != 7; }
bool is_group(int64_t group) { return group == 32 || group == 64 || group == 128; }

bool is_mxfp4(const Grid& grid) {
  const auto* spec = std::get_if<CodebookSpec>(&grid);
  return spec && spec->levels == CodebookSpec::Levels::e2m1 && spec->scale == ScaleKind::e8m0 &&
         spec->group == kMxGroup && spec->rows == 1 && !spec->global && !spec->nested;
}

// ---- reading

enum Part : size_t { kWeight, kScales, kBiases };

class MlxReader : public HfReader {
 public:
  explicit MlxReader(const HfFiles& files) : config_(files.quantization) {
    layers_ = find_layers(files, {{"weight", "scales", "biases"}, 1, [&](const StoredTensor& t) {
                                    return t.type == "u32" && files.find(module_of_weight(t.name) + ".scales");
                                  }});
  }

  std::string convention() const override { return "mlx"; }
  Shape shape(const HfLayer& layer) const override { return layout(layer).shape; }
  Grid grid(const HfLayer& layer) const override { return layout(layer).grid; }

  Quantized load(const HfLayer& layer) const override {
    const Layout l = layout(layer);
    Quantized q(l.grid, l.shape);
    if (const auto* spec = std::get_if<AffineSpec>(&l.grid)) {
      auto& affine = std::get<Affine>(q.params);
      load_plane(*layer.parts[kScales], affine.scale);
      load_plane(*layer.parts[kBiases], affine.bias);
      unpack_rows(spec->bits, layer.parts[kWeight]->bytes, q.codes);
      return q;
    }
    const StoredTensor as_bytes = codes_as_bytes(*layer.parts[kWeight]);
    return load_float_layer(float_layer(as_bytes, *layer.parts[kScales], nullptr));
  }

 private:
  struct Layout {
    Shape shape;
    Grid grid;
  };

  // The same bytes as one byte for two codes.
  static StoredTensor codes_as_bytes(StoredTensor t) {
    t.type = "u8";
    t.shape.back() *= 4;
    return t;
  }

  int64_t setting(const HfLayer& layer, const char* key, int64_t otherwise) const {
    const int64_t common = integer_of(config_, key, otherwise);
    if (!config_.is_object()) return common;
    const auto own = config_.find(layer.module);
    return own == config_.end() ? common : integer_of(*own, key, common);
  }

  Layout layout(const HfLayer& layer) const {
    const StoredTensor &weight = *layer.parts[kWeight], &scales = *layer.parts[kScales];
    require_tensor(weight, "u32", 2);
    if (!layer.parts[kBiases]) {
      const FloatLayer l = float_layer(codes_as_bytes(weight), scales, nullptr);
      return {l.shape, l.spec};
    }
    require_tensor(scales, "", 2);
    require_shape(*layer.parts[kBiases], scales.type, scales.shape);
    const int64_t bits = setting(layer, "bits", 4), group = setting(layer, "group_size", 64);
    const int64_t cols = is_width(bits) ? weight.shape[1] * 32 / bits : 0;
    if (!is_width(bits) || group < 1 || cols * bits != weight.shape[1] * 32 || scales.shape[0] != weight.shape[0] ||
        scales.shape[1] * group != cols)
      refuse_tensor(weight, "the codes, scales and the config contradict each other",
                    fmt::format("[rows, columns · {} / 32] and scales [rows, columns / {}]", bits, group),
                    fmt::format("{} words and {} scales a row", weight.shape[1], scales.shape[1]));
    return {{weight.shape[0], cols},
            AffineSpec{.bits = static_cast<int>(bits),
                       .group = group,
                       .symmetric = false,
                       .scale = scale_kind(scale_type(scales)),
                       .biased = true}};
  }

  static void load_plane(const StoredTensor& t, Plane<float>& plane) {
    Matrix stored(plane.cols(), plane.rows());
    read_scales(t, stored.values());
    plane = transposed(stored);
  }

  Json config_;
};

bool matches(const HfFiles& files) {
  if (!files.method().empty()) return false;
  return std::any_of(files.tensors.begin(), files.tensors.end(), [&](const StoredTensor& t) {
    return t.type == "u32" && t.name.ends_with(".weight") && files.find(module_of_weight(t.name) + ".scales");
  });
}
std::unique_ptr<HfReader> open(const HfFiles& files) { return std::make_unique<MlxReader>(files); }

// ---- writing

Verdict accept(const Grid& wanted, bool ordered) {
  if (ordered)
    return {
        {}, "MLX cannot store an order of the columns", "visit the columns by importance without storing the order"};
  if (is_mxfp4(wanted)) return {wanted, "", ""};
  const auto* spec = std::get_if<AffineSpec>(&wanted);
  if (!spec || spec->rows != 1 || !is_width(spec->bits) || !is_group(spec->group))
    return {{},
            "MLX files hold 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128, or mxfp4",
            "choose a grid such as int4-g64-bias"};
  AffineSpec narrowed = *spec;
  narrowed.symmetric = false, narrowed.biased = true, narrowed.lowest_zero = 0;
  return {narrowed, "", ""};
}

Verdict place(const Grid& accepted, Shape, DType floats) {
  Grid grid = accepted;
  if (auto* spec = std::get_if<AffineSpec>(&grid)) spec->scale = scale_kind(floats);
  return {grid, "", ""};
}

std::vector<SafetensorsSlot> slots(const OutputTensor& t) {
  const std::string module = module_of_weight(t.name);
  const int64_t rows = t.shape[0], cols = t.shape[1];
  if (is_mxfp4(*t.grid))
    return {{t.name, DType::u32, {rows, cols / 8}}, {module + ".scales", DType::u8, {rows, cols / kMxGroup}}};
  const auto& spec = std::get<AffineSpec>(*t.grid);
  const DType floats = scale_dtype(spec.scale);
  return {{t.name, DType::u32, {rows, cols * spec.bits / 32}},
          {module + ".scales", floats, {rows, cols / spec.group}},
          {module + ".biases", floats, {rows, cols / spec.group}}};
}

std::vector<HfPart> encode(const OutputTensor& t, const Quantized& q) {
  const std::string module = module_of_weight(t.name);
  if (is_mxfp4(*t.grid)) return {{t.name, float_codes(q)}, {module + ".scales", float_scales(q)}};
  const auto& affine = std::get<Affine>(q.params);
  const DType floats = scale_dtype(affine.spec.scale);
  std::vector<std::byte> words(static_cast<size_t>(q.codes.size() * affine.spec.bits / 8));
  pack_rows(affine.spec.bits, q.codes, words);
  return {{t.name, std::move(words)},
          {module + ".scales", bytes_as(floats, transposed(affine.scale).values())},
          {module + ".biases", bytes_as(floats, transposed(affine.bias).values())}};
}

Json settings_of(const Grid& grid) {
  if (is_mxfp4(grid)) return {{"group_size", kMxGroup}, {"bits", 4}, {"mode", "mxfp4"}};
  const auto& spec = std::get<AffineSpec>(grid);
  return {{"group_size", spec.group}, {"bits", spec.bits}, {"mode", "affine"}};
}

// The most frequent settings stand for all, others under the layer's name.
Json config(const OutputPlan& plan, const HfWritten&) {
  std::vector<std::pair<Json, int>> counts;
  for (const OutputTensor& t : plan.tensors) {
    if (!t.grid) continue;
    const Json own = settings_of(*t.grid);
    const auto at = std::find_if(counts.begin(), counts.end(), [&](const auto& c) { return c.first == own; });
    at == counts.end() ? counts.emplace_back(own, 1) : (++at->second, *at);
  }
  if (counts.empty()) return Json::object();
  const Json common = std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
                        return a.second < b.second;
                      })->first;
  Json out = common;
  for (const OutputTensor& t : plan.tensors)
    if (t.grid && settings_of(*t.grid) != common) out[module_of_weight(t.name)] = settings_of(*t.grid);
  return out;
}

std::vector<RuntimeVerdict> runtimes(const OutputPlan&) {
  return {{"mlx", true}, {"vllm", false, "its files are for Apple's MLX"}};
}

}  // namespace

const HfFormat kMlxFormat{.name = "mlx",
                          .matches = matches,
                          .open = open,
                          .accept = accept,
                          .place = place,
                          .slots = slots,
                          .encode = encode,
                          .config = config,
                          .config_keys = {"quantization", "quantization_config"},
                          .embeddings = true,
                          .runtimes = runtimes};

}  // namespace pare
