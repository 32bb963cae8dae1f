// Checkpoints that are published in 8-bit or 4-bit floats, and only read:
//
//   FP8 in blocks (DeepSeek)   <module>.weight F8_E4M3 [N, K], <module>.weight_scale_inv F32 [ceil(N/B), ceil(K/B)]
//   MXFP4 (gpt-oss)            <tensor>_blocks U8 [experts, N, K/32, 16], <tensor>_scales U8 [experts, N, K/32]
//
// Both are described in float_layers.h. The name weight_scale_inv misleads: it is multiplied by.
#include <fmt/format.h>

#include "pare/container/float_layers.h"

namespace pare {
namespace {

class Fp8Reader : public HfReader {
 public:
  explicit Fp8Reader(const HfFiles& files) {
    const auto block = files.quantization.find("weight_block_size");
    if (block != files.quantization.end() && block->is_array() && block->size() == 2 && (*block)[0] == (*block)[1] &&
        (*block)[0].is_number_unsigned())
      block_ = (*block)[0].get<int64_t>();
    else if (block != files.quantization.end() && !block->is_null())
      refuse_config(files, "blocks of this shape are not read", "two equal sides", block->dump());
    const std::string kind = text_of(files.quantization, "fmt");
    if (!kind.empty() && kind != "e4m3") refuse_config(files, "floats of this kind are not read", "e4m3", kind);
    layers_ = find_layers(
        files, {{"weight", "weight_scale_inv"}, 2, [](const StoredTensor& t) { return t.type == "f8_e4m3"; }});
  }

  std::string convention() const override { return "fp8"; }
  Shape shape(const HfLayer& layer) const override { return parts(layer).shape; }
  Grid grid(const HfLayer& layer) const override { return parts(layer).spec; }
  Quantized load(const HfLayer& layer) const override { return load_float_layer(parts(layer)); }

 private:
  FloatLayer parts(const HfLayer& layer) const {
    return float_layer(*layer.parts[0], *layer.parts[1], nullptr, block_);
  }
  int64_t block_ = 128;
};

class GptOssReader : public HfReader {
 public:
  explicit GptOssReader(const HfFiles& files) {
    constexpr std::string_view kBlocks = "_blocks";
    for (const StoredTensor& t : files.tensors) {
      if (!t.name.ends_with(kBlocks)) continue;
      const std::string name = t.name.substr(0, t.name.size() - kBlocks.size());
      const StoredTensor* scales = files.find(name + "_scales");
      if (!scales) refuse_tensor(t, "a quantized layer is incomplete", name + "_scales", "no such tensor");
      require_tensor(t, "u8", t.shape.size());
      if (t.shape.size() < 3 || t.shape.back() != 16)
        refuse_tensor(t, "the tensor has a wrong shape", "[…, rows, groups, 16]",
                      fmt::format("{} dimensions", t.shape.size()));
      StoredTensor flat = t;  // rows of codes, as float_layer wants them
      flat.shape.pop_back();
      flat.shape.back() *= 16;
      flat_.push_back(std::make_unique<StoredTensor>(std::move(flat)));
      layers_.emplace(name, HfLayer{name, {flat_.back().get(), scales}});
    }
  }

  std::string convention() const override { return "gpt-oss"; }
  Shape shape(const HfLayer& layer) const override { return parts(layer).shape; }
  Grid grid(const HfLayer& layer) const override { return parts(layer).spec; }
  Quantized load(const HfLayer& layer) const override { return load_float_layer(parts(layer)); }

 private:
  static FloatLayer parts(const HfLayer& layer) { return float_layer(*layer.parts[0], *layer.parts[1], nullptr); }
  std::vector<std::unique_ptr<StoredTensor>> flat_;
};

}  // namespace

const HfFormat kFp8Format{
    .name = "fp8",
    .matches = [](const HfFiles& files) { return files.method() == "fp8"; },
    .open = [](const HfFiles& files) -> std::unique_ptr<HfReader> { return std::make_unique<Fp8Reader>(files); }};
const HfFormat kGptOssFormat{
    .name = "mxfp4",
    .matches = [](const HfFiles& files) { return files.method() == "mxfp4"; },
    .open = [](const HfFiles& files) -> std::unique_ptr<HfReader> { return std::make_unique<GptOssReader>(files); }};

}  // namespace pare
