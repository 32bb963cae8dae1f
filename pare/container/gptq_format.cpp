// The rows of GPTQ checkpoints: formats v1 (the zero minus one is stored) and v2.
#include <fmt/format.h>

#include "pare/base/error.h"
#include "pare/base/json.h"
#include "pare/container/bit_packing.h"
#include "pare/container/gptq_config.h"
#include "pare/container/gptq_tensors.h"
#include "pare/container/hf_format.h"

namespace pare {
namespace {

// ---- reading

GptqParts parts_of(const HfLayer& layer) {
  return {layer.module, layer.parts[0], layer.parts[1], layer.parts[2], layer.parts[3]};
}

class GptqReader : public HfReader {
 public:
  explicit GptqReader(const HfFiles& files) : convention_(read_gptq_config(files.quantization, files.where)) {
    layers_ = find_layers(files, {{"qweight", "qzeros", "scales", "g_idx"}, 3});
    if (!layers_.empty() && contradicts_format(parts_of(layers_.begin()->second), convention_))
      files.warn(
          fmt::format("{}: the zero points contradict the checkpoint_format; symmetric zero points are read as the "
                      "middle code",
                      files.where));
  }

  std::string convention() const override { return "gptq"; }
  Shape shape(const HfLayer& layer) const override { return gptq_layout(parts_of(layer)).shape(); }
  Grid grid(const HfLayer& layer) const override { return gptq_spec(parts_of(layer), convention_); }
  Grid rough_grid(const HfLayer& layer) const override {
    const GptqLayout l = gptq_layout(parts_of(layer));
    return AffineSpec{.bits = l.bits, .group = l.group(), .symmetric = convention_.symmetric};
  }
  Quantized load(const HfLayer& layer) const override { return decode_gptq(parts_of(layer), convention_); }

 private:
  GptqConvention convention_;
};

// Words of qweight are as many columns as there are scales: AWQ has an eighth of that.
bool has_gptq_layers(const HfFiles& files) {
  for (const StoredTensor& t : files.tensors)
    if (t.name.ends_with(".qweight") && t.shape.size() == 2) {
      const StoredTensor* scales = files.find(t.name.substr(0, t.name.size() - 8) + ".scales");
      return !scales || scales->shape.size() != 2 || scales->shape[1] != 8 * t.shape[1];
    }
  return false;
}

bool matches(const HfFiles& files) {
  if (files.method() == "gptq") return true;
  const bool awq = files.quantization.is_object() && files.quantization.contains("zero_point");
  return files.method().empty() && !awq && has_gptq_layers(files);
}

std::unique_ptr<HfReader> open(const HfFiles& files) { return std::make_unique<GptqReader>(files); }

// ---- writing

template <GptqZeros kZeros>
Verdict accept(const Grid& wanted, bool) {
  const auto* spec = std::get_if<AffineSpec>(&wanted);
  if (!spec || spec->biased || spec->rows != 1)
    return {{},
            "GPTQ files hold integer codes in groups, not the blocks of GGUF",
            "choose an integer grid such as int4-g128, or the gguf container"};
  const bool odd = spec->bits == 5 || spec->bits == 6 || spec->bits == 7;
  if (odd && kZeros != GptqZeros::planar)
    return {{},
            fmt::format("GPTQ files hold 2, 3, 4 or 8 bits, not {}", spec->bits),
            "choose --bits 2, 3, 4 or 8, or the gptq_p container"};
  AffineSpec narrowed = *spec;
  narrowed.scale = ScaleKind::f16;
  if (kZeros == GptqZeros::minus_one && !spec->symmetric && narrowed.lowest_zero < 1) narrowed.lowest_zero = 1;
  return {narrowed, "", ""};
}

Verdict place(const Grid& accepted, Shape shape, DType) {
  if (shape.rows % kPackRun == 0 && shape.cols % kPackRun == 0) return {accepted, "", ""};
  return {{},
          fmt::format("{} x {} is no multiple of 32 both ways, GPTQ cannot pack it", shape.rows, shape.cols),
          "keep the tensor in floats (--skip)"};
}

std::vector<SafetensorsSlot> slots(const OutputTensor& t) {
  const auto& spec = std::get<AffineSpec>(*t.grid);
  const int64_t rows = t.shape[0], cols = t.shape[1];
  if (const Verdict fits = place(*t.grid, {rows, cols}, t.dtype); !fits.grid)
    throw Error({.what = fits.why, .where = t.name, .expected = "multiples of 32", .remedy = fits.remedy});
  const int64_t groups = cols / (spec.group == 0 ? cols : spec.group);
  const std::string module = module_of_weight(t.name);
  return {{module + ".qweight", DType::i32, {cols * spec.bits / 32, rows}},
          {module + ".qzeros", DType::i32, {groups, rows * spec.bits / 32}},
          {module + ".scales", DType::f16, {groups, rows}},
          {module + ".g_idx", DType::i32, {cols}}};
}

template <GptqZeros kZeros>
std::vector<HfPart> encode(const OutputTensor& t, const Quantized& q) {
  const std::string module = module_of_weight(t.name);
  GptqBytes bytes = encode_gptq(q, kZeros);
  return {{module + ".qweight", std::move(bytes.qweight)},
          {module + ".qzeros", std::move(bytes.qzeros)},
          {module + ".scales", std::move(bytes.scales)},
          {module + ".g_idx", std::move(bytes.g_idx)}};
}

template <GptqZeros kZeros>
Json config(const OutputPlan& plan, const HfWritten& written) {
  return gptq_config(plan, kZeros, written.ordered);
}

template <GptqZeros kZeros>
std::vector<RuntimeVerdict> runtimes(const OutputPlan& plan) {
  bool marlin = true, exllama = kZeros == GptqZeros::minus_one;
  std::string why_not;
  for (const OutputTensor& t : plan.tensors) {
    const auto* spec = t.grid ? std::get_if<AffineSpec>(&*t.grid) : nullptr;
    if (!spec) continue;
    if (!spec->symmetric || (spec->bits != 4 && spec->bits != 8)) {
      marlin = false;
      why_not = "it takes only symmetric 4- and 8-bit GPTQ";
    } else if (t.shape[1] % 128 != 0 || t.shape[0] % 64 != 0) {
      marlin = false;
      why_not = t.name + ": its kernels want inputs divisible by 128 and outputs by 64";
    }
    if (spec->bits != 4) exllama = false;
  }
  return {{"transformers", true, "through the gptqmodel package"},
          {"vllm", marlin, why_not},
          {"exllamav2", exllama, exllama ? "" : "it takes only 4-bit GPTQ files of format v1"}};
}

}  // namespace

const HfFormat kGptqFormat{.name = "gptq",
                           .matches = matches,
                           .open = open,
                           .accept = accept<GptqZeros::minus_one>,
                           .place = place,
                           .slots = slots,
                           .encode = encode<GptqZeros::minus_one>,
                           .config = config<GptqZeros::minus_one>,
                           .config_file = "quantize_config.json",
                           .runtimes = runtimes<GptqZeros::minus_one>};
const HfFormat kGptqPlanarFormat{.name = "gptq_p",
                                 .accept = accept<GptqZeros::planar>,
                                 .place = place,
                                 .slots = slots,
                                 .encode = encode<GptqZeros::planar>,
                                 .config = config<GptqZeros::planar>,
                                 .config_file = "quantize_config.json",
                                 .runtimes = [](const OutputPlan&) -> std::vector<RuntimeVerdict> {
                                   return {{"transformers", true, "through the gptqmodel package"},
                                           {"vllm", false, "only gptqmodel reads bit planes"}};
                                 }};
const HfFormat kGptqV2Format{.name = "gptq_v2",
                             .accept = accept<GptqZeros::plain>,
                             .place = place,
                             .slots = slots,
                             .encode = encode<GptqZeros::plain>,
                             .config = config<GptqZeros::plain>,
                             .config_file = "quantize_config.json",
                             .runtimes = runtimes<GptqZeros::plain>};

}  // namespace pare
