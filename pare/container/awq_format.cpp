// AWQ checkpoints, 4 bits with a zero point. For W [N outputs x K inputs], G groups of columns, ZW words of zeros:
//
//   gemm       <module>.qweight I32 [K, N/8]   along the outputs, each eight in the order 0 2 4 6 1 3 5 7
//              <module>.qzeros  I32 [G, N/8]   the same order
//              <module>.scales  F16 [G, N]
//   gemv       <module>.qweight I32 [N, K/8]   along the inputs
//              <module>.qzeros  I32 [N, ZW]    along the groups
//              <module>.scales  F16 [N, 8 ZW]
//   gemv_fast  <module>.qweight I16 [N/4, K]   four inputs of one output in a word, see unpack_fast
//              <module>.qzeros  F16 [8 ZW, N]  minus scale times zero
//              <module>.scales  F16 [8 ZW, N]
//
// value = scale (code - zero). gemm is written, all are read. Source: hf_checkpoints.md A.2.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>

#include "pare/base/error.h"
#include "pare/base/float_formats.h"
#include "pare/container/bit_packing.h"
#include "pare/container/hf_format.h"

namespace pare {
namespace {

constexpr int kBits = 4, kTop = 15, kMiddle = 8;
constexpr int64_t kPerWord = 8;
constexpr RowOrder8 kGemmOrder{{0, 2, 4, 6, 1, 3, 5, 7}};

enum class Version : uint8_t { gemm, gemv, gemv_fast };

struct Layout {
  Version version = Version::gemm;
  int64_t rows = 0, cols = 0, group = 0;
  int64_t groups() const { return cols / group; }
};

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// ---- reading

class AwqReader : public HfReader {
 public:
  explicit AwqReader(const HfFiles& files) {
    const Json& q = files.quantization;
    const std::string version = lower(text_of(q, "version"));
    if (version == "gemv")
      version_ = Version::gemv;
    else if (version == "gemv_fast")
      version_ = Version::gemv_fast;
    else if (!version.empty() && version != "gemm")
      refuse_config(files, "this variant of AWQ files is not read", "gemm, gemv or gemv_fast", version);
    const int64_t bits = integer_of(q, "bits", integer_of(q, "w_bit", kBits));
    if (bits != kBits) refuse_config(files, "AWQ files have 4 bits", "4", std::to_string(bits));
    group_ = integer_of(q, "group_size", integer_of(q, "q_group_size", 0));
    layers_ = find_layers(files, {{"qweight", "qzeros", "scales"}, 3});
  }

  std::string convention() const override {
    return version_ == Version::gemm ? "awq" : version_ == Version::gemv ? "awq gemv" : "awq gemv_fast";
  }
  Shape shape(const HfLayer& layer) const override {
    const Layout l = layout(layer);
    return {l.rows, l.cols};
  }
  Grid grid(const HfLayer& layer) const override {
    const Layout l = layout(layer);
    return spec_of(l, zeros(layer, l));
  }
  Grid rough_grid(const HfLayer& layer) const override {
    return AffineSpec{.bits = kBits, .group = layout(layer).group, .symmetric = false};
  }

  Quantized load(const HfLayer& layer) const override {
    const Layout l = layout(layer);
    Plane<uint8_t> zero = zeros(layer, l);
    Quantized q(spec_of(l, zero), {l.rows, l.cols});
    auto& affine = std::get<Affine>(q.params);
    affine.scale = scales(layer, l);
    affine.zero = std::move(zero);
    const auto words = layer.parts[0]->bytes;
    if (l.version == Version::gemm) {
      Plane<uint8_t> turned(l.cols, l.rows);
      unpack_rows(kBits, words, turned, kGemmOrder);
      q.codes = transposed_codes(turned);
    } else if (l.version == Version::gemv) {
      unpack_rows(kBits, words, q.codes);
    } else {
      unpack_fast(words, q.codes);
    }
    return q;
  }

 private:
  static AffineSpec spec_of(const Layout& l, const Plane<uint8_t>& zero) {
    const bool symmetric = std::all_of(zero.values().begin(), zero.values().end(), [](int z) { return z == kMiddle; });
    return {.bits = kBits, .group = l.group, .symmetric = symmetric};
  }

  Layout layout(const HfLayer& layer) const {
    const StoredTensor &words = *layer.parts[0], &zeros = *layer.parts[1], &scales = *layer.parts[2];
    require_tensor(words, version_ == Version::gemv_fast ? "i16" : "i32", 2);
    require_tensor(scales, "", 2);
    Layout l{.version = version_};
    if (version_ == Version::gemm) {
      l.rows = words.shape[1] * kPerWord, l.cols = words.shape[0];
      require_shape(scales, scales.type, {scales.shape[0], l.rows});
      require_shape(zeros, "i32", {scales.shape[0], words.shape[1]});
      if (l.cols % scales.shape[0] != 0)
        refuse_tensor(scales, "the groups do not divide the inputs", fmt::format("a divisor of {}", l.cols),
                      fmt::format("{} groups", scales.shape[0]));
      l.group = l.cols / scales.shape[0];
      return l;
    }
    const bool fast = version_ == Version::gemv_fast;
    l.rows = words.shape[0] * (fast ? 4 : 1), l.cols = words.shape[1] * (fast ? 1 : kPerWord);
    l.group = group_ > 0 ? group_ : l.cols;
    if (l.cols % l.group != 0 || (fast && l.cols % 64 != 0))
      refuse_tensor(words, "the groups do not divide the inputs",
                    fmt::format("a multiple of {}", fast ? std::max<int64_t>(l.group, 64) : l.group),
                    fmt::format("{} inputs", l.cols));
    const int64_t padded = fast ? scales.shape[0] : scales.shape[1];  // groups, filled up with zeros
    if (padded < l.groups() || padded % kPerWord != 0)
      refuse_tensor(scales, "there are too few scales", fmt::format("at least {}", l.groups()), std::to_string(padded));
    if (fast) {
      require_shape(scales, scales.type, {padded, l.rows});
      require_shape(zeros, scales.type, {padded, l.rows});
    } else {
      require_shape(scales, scales.type, {l.rows, padded});
      require_shape(zeros, "i32", {l.rows, padded / kPerWord});
    }
    return l;
  }

  // As stored: groups x rows, or rows x groups filled up.
  static Matrix stored(const StoredTensor& t) {
    Matrix m(t.shape[0], t.shape[1]);
    read_scales(t, m.values());
    return m;
  }
  static Plane<float> scales(const HfLayer& layer, const Layout& l) {
    const Matrix m = stored(*layer.parts[2]);
    Plane<float> out(l.groups(), l.rows);
    for (int64_t g = 0; g < out.rows(); ++g)
      for (int64_t r = 0; r < l.rows; ++r) out(g, r) = l.version == Version::gemv ? m(r, g) : m(g, r);
    return out;
  }

  static Plane<uint8_t> zeros(const HfLayer& layer, const Layout& l) {
    Plane<uint8_t> out(l.groups(), l.rows);
    const StoredTensor& t = *layer.parts[1];
    if (l.version == Version::gemm) {
      unpack_rows(kBits, t.bytes, out, kGemmOrder);
    } else if (l.version == Version::gemv) {
      Plane<uint8_t> fields(l.rows, t.shape[1] * kPerWord);
      unpack_rows(kBits, t.bytes, fields);
      for (int64_t g = 0; g < out.rows(); ++g)
        for (int64_t r = 0; r < l.rows; ++r) out(g, r) = fields(r, g);
    } else {
      const Matrix shift = stored(t), scale = stored(*layer.parts[2]);
      for (int64_t g = 0; g < out.rows(); ++g)
        for (int64_t r = 0; r < l.rows; ++r) out(g, r) = zero_of(t, shift(g, r), scale(g, r), g, r);
    }
    return out;
  }
  // gemv_fast stores -scale zero, rounded.
  static uint8_t zero_of(const StoredTensor& t, float shift, float scale, int64_t g, int64_t r) {
    const float zero = scale == 0 ? 0 : std::nearbyint(-shift / scale);
    if (!(zero >= 0 && zero <= kTop) || round_to_f16(-scale * zero) != shift)
      refuse_tensor(t, "a zero point is no multiple of its scale", "minus the scale times 0 to 15",
                    fmt::format("{} for a scale of {} at [{}, {}]", shift, scale, g, r));
    return static_cast<uint8_t>(zero);
  }

  // Word [R, 64 B + 16 r + 8 h + j] holds the codes of output 4 R + r at inputs 64 B + 32 h + 8 e + j, e = 0…3.
  static void unpack_fast(std::span<const std::byte> words, Plane<uint8_t>& codes) {
    const int64_t cols = codes.cols();
    for (int64_t row = 0; row < codes.rows(); ++row)
      for (int64_t block = 0; block < cols; block += 64)
        for (int64_t i = 0; i < 16; ++i) {
          uint16_t word;
          std::memcpy(&word, words.data() + 2 * (row / 4 * cols + block + row % 4 * 16 + i), 2);
          for (int64_t e = 0; e < 4; ++e)
            codes(row, block + i / 8 * 32 + 8 * e + i % 8) = static_cast<uint8_t>(word >> (4 * e) & kTop);
        }
  }

  Version version_ = Version::gemm;
  int64_t group_ = 0;
};

bool matches(const HfFiles& files) {
  if (files.method() == "awq") return true;
  if (!files.method().empty()) return false;
  if (files.quantization.is_object() && files.quantization.contains("zero_point")) return true;
  // Without a config: packed along the outputs, so that eight scales belong to a word.
  for (const StoredTensor& t : files.tensors) {
    if (!t.name.ends_with(".qweight") || t.shape.size() != 2) continue;
    const StoredTensor* scales = files.find(t.name.substr(0, t.name.size() - 8) + ".scales");
    return scales && scales->shape.size() == 2 && t.shape[1] > 0 && scales->shape[1] == kPerWord * t.shape[1];
  }
  return false;
}

std::unique_ptr<HfReader> open(const HfFiles& files) { return std::make_unique<AwqReader>(files); }

// ---- writing

Verdict accept(const Grid& wanted, bool ordered) {
  const auto* spec = std::get_if<AffineSpec>(&wanted);
  if (!spec || spec->biased || spec->rows != 1)
    return {{}, "AWQ files hold integer codes in groups", "choose an integer grid such as int4-g128-asym"};
  if (spec->bits != kBits) return {{}, fmt::format("AWQ files hold 4 bits, not {}", spec->bits), "choose --bits 4"};
  if (ordered)
    return {
        {}, "AWQ cannot store an order of the columns", "visit the columns by importance without storing the order"};
  AffineSpec narrowed = *spec;
  narrowed.scale = ScaleKind::f16;
  narrowed.lowest_zero = 0;
  return {narrowed, "", ""};
}

Verdict place(const Grid& accepted, Shape shape, DType) {
  if (shape.rows % kPackRun == 0) return {accepted, "", ""};
  return {{},
          fmt::format("{} rows are no multiple of 32, AWQ cannot pack them", shape.rows),
          "keep the tensor in floats (--skip)"};
}

std::vector<SafetensorsSlot> slots(const OutputTensor& t) {
  const auto& spec = std::get<AffineSpec>(*t.grid);
  const int64_t rows = t.shape[0], cols = t.shape[1], groups = spec.group == 0 ? 1 : cols / spec.group;
  if (const Verdict fits = place(*t.grid, {rows, cols}, t.dtype); !fits.grid)
    throw Error({.what = fits.why, .where = t.name, .remedy = fits.remedy});
  const std::string module = module_of_weight(t.name);
  return {{module + ".qweight", DType::i32, {cols, rows / kPerWord}},
          {module + ".qzeros", DType::i32, {groups, rows / kPerWord}},
          {module + ".scales", DType::f16, {groups, rows}}};
}

std::vector<HfPart> encode(const OutputTensor& t, const Quantized& q) {
  const auto& affine = std::get<Affine>(q.params);
  std::vector<std::byte> words(static_cast<size_t>(q.codes.size() / 2));
  pack_rows(kBits, transposed_codes(q.codes), words, kGemmOrder);
  std::vector<std::byte> zeros(static_cast<size_t>(affine.zero.size() / 2));
  pack_rows(kBits, affine.zero, zeros, kGemmOrder);
  const std::string module = module_of_weight(t.name);
  return {{module + ".qweight", std::move(words)},
          {module + ".qzeros", std::move(zeros)},
          {module + ".scales", bytes_as(DType::f16, affine.scale.values())}};
}

// One group size for all layers: AWQ has no words for exceptions but "not at all".
Json config(const OutputPlan& plan, const HfWritten&) {
  const int64_t group = one_group_size(plan, "AWQ");
  const std::vector<std::string> kept = modules_kept_float(plan);
  return {{"quant_method", "awq"}, {"bits", kBits},     {"group_size", group},
          {"zero_point", true},    {"version", "gemm"}, {"modules_to_not_convert", kept.empty() ? Json() : Json(kept)}};
}

std::vector<RuntimeVerdict> runtimes(const OutputPlan&) {
  return {{"vllm", true}, {"sglang", true}, {"transformers", true, "through the gptqmodel package"}};
}

}  // namespace

const HfFormat kAwqFormat{.name = "awq",
                          .matches = matches,
                          .open = open,
                          .accept = accept,
                          .place = place,
                          .slots = slots,
                          .encode = encode,
                          .config = config,
                          .runtimes = runtimes};

}  // namespace pare
