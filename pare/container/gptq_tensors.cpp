#include "pare/container/gptq_tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "pare/base/error.h"
#include "pare/base/float_formats.h"
#include "pare/container/bit_packing.h"
#include "pare/container/hf_format.h"

namespace pare {
namespace {

int middle(int bits) { return 1 << (bits - 1); }
int highest(int bits) { return (1 << bits) - 1; }

void require(const StoredTensor& t, std::string_view type, size_t rank) {
  if (t.type != type)
    refuse_tensor(t, "the tensor has another type than GPTQ files use", std::string(type), t.type,
                  "only 32-bit words are read; save the checkpoint with pack_dtype int32");
  const bool positive = std::all_of(t.shape.begin(), t.shape.end(), [](int64_t n) { return n > 0; });
  if (t.shape.size() != rank || !positive)
    refuse_tensor(t, "the tensor has a wrong shape", fmt::format("{} dimensions, none empty", rank),
                  fmt::format("{}", t.shape));
}

std::vector<uint32_t> words_of(const StoredTensor& t) {
  std::vector<uint32_t> words(t.bytes.size() / 4);
  std::memcpy(words.data(), t.bytes.data(), words.size() * 4);
  return words;
}

// ---- bit planes

struct BitPlane {
  int width = 0, shift = 0;  // bits, from this bit of a code
};
std::vector<BitPlane> planes_of(int bits) {
  std::vector<BitPlane> out;
  int shift = 0;
  for (const int width : {8, 4, 2, 1})
    if (bits & width) {
      out.push_back({width, shift});
      shift += width;
    }
  return out;
}

// The words of one plane between those of all: a run of 32 codes has `bits` lines of `stride` words, and `plane.shift`
// of them come before the plane's own.
void take_plane(int bits, const BitPlane& plane, int64_t stride, std::span<const std::byte> all,
                std::span<std::byte> own) {
  const auto line = static_cast<size_t>(4 * stride), width = static_cast<size_t>(plane.width);
  for (size_t run = 0; (run + 1) * width * line <= own.size(); ++run)
    std::memcpy(own.data() + run * width * line,
                all.data() + (run * static_cast<size_t>(bits) + static_cast<size_t>(plane.shift)) * line, width * line);
}
void put_plane(int bits, const BitPlane& plane, int64_t stride, std::span<const std::byte> own,
               std::span<std::byte> all) {
  const auto line = static_cast<size_t>(4 * stride), width = static_cast<size_t>(plane.width);
  for (size_t run = 0; (run + 1) * width * line <= own.size(); ++run)
    std::memcpy(all.data() + (run * static_cast<size_t>(bits) + static_cast<size_t>(plane.shift)) * line,
                own.data() + run * width * line, width * line);
}
void add_plane(const BitPlane& plane, const Plane<uint8_t>& part, Plane<uint8_t>& codes) {
  for (int64_t i = 0; i < codes.size(); ++i)
    codes.data()[i] = static_cast<uint8_t>(codes.data()[i] | part.data()[i] << plane.shift);
}
Plane<uint8_t> part_of(const BitPlane& plane, const Plane<uint8_t>& codes) {
  Plane<uint8_t> part(codes.rows(), codes.cols());
  for (int64_t i = 0; i < codes.size(); ++i)
    part.data()[i] = static_cast<uint8_t>(codes.data()[i] >> plane.shift & ((1 << plane.width) - 1));
  return part;
}

// The fields of qzeros as stored.
Plane<uint8_t> zero_fields(const GptqParts& parts, const GptqLayout& l) {
  Plane<uint8_t> fields(l.groups, l.rows);
  unpack_bits(l.bits, words_of(*parts.qzeros), fields.values());
  return fields;
}
Plane<uint8_t> planar_zero_fields(const GptqParts& parts, const GptqLayout& l) {
  Plane<uint8_t> fields(l.groups, l.rows);
  for (const BitPlane& plane : planes_of(l.bits)) {
    std::vector<uint32_t> words(static_cast<size_t>(fields.size() * plane.width / 32));
    take_plane(l.bits, plane, 1, parts.qzeros->bytes, std::as_writable_bytes(std::span(words)));
    Plane<uint8_t> part(l.groups, l.rows);
    unpack_bits(plane.width, words, part.values());
    add_plane(plane, part, fields);
  }
  return fields;
}
void unpack_planar(const GptqParts& parts, const GptqLayout& l, std::span<const int32_t> order, Plane<uint8_t>& codes) {
  for (const BitPlane& plane : planes_of(l.bits)) {
    std::vector<std::byte> words(static_cast<size_t>(codes.size() * plane.width / 8));
    take_plane(l.bits, plane, l.rows, parts.qweight->bytes, words);
    Plane<uint8_t> part(codes.rows(), codes.cols());
    unpack_columns(plane.width, words, order, part);
    add_plane(plane, part, codes);
  }
}

bool all_equal(const Plane<uint8_t>& fields, int value) {
  return std::all_of(fields.values().begin(), fields.values().end(), [&](uint8_t f) { return f == value; });
}

struct Zeros {
  bool symmetric = false;
  Plane<uint8_t> values;  // groups x rows; empty when symmetric
};

// A one in every field of a word; zero when fields straddle words (3 bits).
uint32_t ones(int bits) { return 32 % bits == 0 ? 0xFFFFFFFFu / static_cast<uint32_t>(highest(bits)) : 0; }

// v1 fields hold the zero minus one. A zero of 0 has no such field: GPTQModel subtracts from whole words, so that only
// adding to whole words gives it back; in files of others a field of all ones means 2^bits to some readers and 0 to
// others.
Plane<uint8_t> undo_minus_one(const GptqParts& parts, const GptqLayout& l, Plane<uint8_t> fields, bool whole_words) {
  if (whole_words && ones(l.bits) != 0) {
    std::vector<uint32_t> words = words_of(*parts.qzeros);
    for (uint32_t& word : words) word += ones(l.bits);
    unpack_bits(l.bits, words, fields.values());
    return fields;
  }
  const int top = highest(l.bits);
  for (uint8_t& field : fields.values()) {
    if (field == top && !whole_words)
      refuse_tensor(*parts.qzeros, "a zero point of this file is read differently by different programs",
                    fmt::format("fields below {} (GPTQ format v1 stores the zero minus one)", top),
                    std::to_string(field), "save the checkpoint again in the format gptq_v2");
    field = static_cast<uint8_t>((field + 1) & top);
  }
  return fields;
}

Zeros read_zeros(const GptqParts& parts, const GptqLayout& l, const GptqConvention& convention) {
  const bool planar = convention.zeros == GptqZeros::planar;
  Plane<uint8_t> fields = planar ? planar_zero_fields(parts, l) : zero_fields(parts, l);
  const bool constant = all_equal(fields, middle(l.bits)) || all_equal(fields, middle(l.bits) - 1);
  if (convention.symmetric && constant) return {true, {}};
  if (convention.zeros != GptqZeros::minus_one) return {false, std::move(fields)};
  return {false, undo_minus_one(parts, l, std::move(fields), convention.whole_words)};
}

AffineSpec spec_of(const GptqLayout& l, const Zeros& zeros, const GptqConvention& convention) {
  AffineSpec spec{.bits = l.bits, .group = l.group(), .symmetric = zeros.symmetric};
  if (!zeros.symmetric && convention.zeros == GptqZeros::minus_one)
    spec.lowest_zero =
        std::find(zeros.values.values().begin(), zeros.values.values().end(), 0) == zeros.values.values().end() ? 1 : 0;
  return spec;
}

void read_scales(const StoredTensor& t, DType dtype, Plane<float>& scales) {
  to_f32(dtype, t.bytes, scales.values());
  for (int64_t i = 0; i < scales.size(); ++i) {
    const float s = scales.data()[i];
    if (std::isfinite(s) && round_to_f16(s) == s) continue;
    const auto where = fmt::format("{} at [{}, {}]", s, i / scales.cols(), i % scales.cols());
    if (!std::isfinite(s)) refuse_tensor(t, "a scale is not finite", "finite numbers", where);
    refuse_tensor(t, "a scale is not exact in f16, and rounding it would change the weights", "scales exact in f16",
                  where, "save the checkpoint with f16 scales");
  }
}

void pack_planar(int bits, const Plane<uint8_t>& codes, std::span<const int32_t> order, std::span<std::byte> words) {
  for (const BitPlane& plane : planes_of(bits)) {
    std::vector<std::byte> own(static_cast<size_t>(codes.size() * plane.width / 8));
    pack_columns(plane.width, part_of(plane, codes), order, own);
    put_plane(bits, plane, codes.rows(), own, words);
  }
}
void pack_planar_fields(int bits, const std::vector<uint8_t>& fields, std::span<uint32_t> words) {
  Plane<uint8_t> codes(1, static_cast<int64_t>(fields.size()));
  std::copy(fields.begin(), fields.end(), codes.data());
  for (const BitPlane& plane : planes_of(bits)) {
    std::vector<uint32_t> own(fields.size() * static_cast<size_t>(plane.width) / 32);
    pack_bits(plane.width, part_of(plane, codes).values(), own);
    put_plane(bits, plane, 1, std::as_bytes(std::span(own)), std::as_writable_bytes(words));
  }
}

void put(std::vector<std::byte>& to, const void* from, size_t size) {
  to.resize(size);
  std::memcpy(to.data(), from, size);
}

}  // namespace

GptqLayout gptq_layout(const GptqParts& parts) {
  require(*parts.qweight, "i32", 2);
  require(*parts.qzeros, "i32", 2);
  require(*parts.scales, parts.scales->type, 2);
  scale_type(*parts.scales);
  GptqLayout l;
  l.rows = parts.qweight->shape[1];
  l.groups = parts.scales->shape[0];
  if (parts.scales->shape[1] != l.rows)
    refuse_tensor(*parts.scales, "the scales do not fit the codes", fmt::format("[groups, {}]", l.rows),
                  fmt::format("{}", parts.scales->shape));
  const int64_t zero_words = parts.qzeros->shape[1];
  if (parts.qzeros->shape[0] != l.groups || zero_words > l.rows || 32 * zero_words % l.rows != 0)
    refuse_tensor(*parts.qzeros, "the zero points do not fit the scales",
                  fmt::format("[{}, {} · bits / 32]", l.groups, l.rows), fmt::format("{}", parts.qzeros->shape));
  l.bits = static_cast<int>(32 * zero_words / l.rows);
  if (l.bits < 2 || l.bits > 8)
    refuse_tensor(*parts.qzeros, "GPTQ layers of this width are not supported", "2 to 8 bits", std::to_string(l.bits),
                  "quantize the original model to one of these");
  const int64_t code_words = parts.qweight->shape[0];
  l.cols = 32 * code_words / l.bits;
  if (code_words % l.bits != 0 || l.rows % kPackRun != 0)
    refuse_tensor(*parts.qweight, "the layer is no multiple of 32 both ways",
                  fmt::format("[a multiple of {}, a multiple of 32] for {} bits", l.bits, l.bits),
                  fmt::format("{}", parts.qweight->shape));
  if (parts.g_idx) {
    require(*parts.g_idx, "i32", 1);
    if (parts.g_idx->shape[0] != l.cols)
      refuse_tensor(*parts.g_idx, "the list of groups does not fit the codes", fmt::format("[{}]", l.cols),
                    fmt::format("{}", parts.g_idx->shape));
  }
  if (l.cols % l.groups != 0)
    refuse_tensor(*parts.scales, "the groups do not divide the columns", fmt::format("a divisor of {}", l.cols),
                  fmt::format("{} groups", l.groups), "layers with a shorter last group are not supported");
  return l;
}

AffineSpec gptq_spec(const GptqParts& parts, const GptqConvention& convention) {
  const GptqLayout l = gptq_layout(parts);
  return spec_of(l, read_zeros(parts, l, convention), convention);
}

bool contradicts_format(const GptqParts& parts, const GptqConvention& convention) {
  if (!convention.symmetric || convention.zeros == GptqZeros::planar) return false;
  const GptqLayout l = gptq_layout(parts);
  return all_equal(zero_fields(parts, l), middle(l.bits) - (convention.zeros == GptqZeros::plain ? 1 : 0));
}

Quantized decode_gptq(const GptqParts& parts, const GptqConvention& convention) {
  const GptqLayout l = gptq_layout(parts);
  Zeros zeros = read_zeros(parts, l, convention);
  Quantized q(spec_of(l, zeros, convention), l.shape());
  auto& affine = std::get<Affine>(q.params);
  read_scales(*parts.scales, scale_type(*parts.scales), affine.scale);
  if (!zeros.symmetric) affine.zero = std::move(zeros.values);
  if (parts.g_idx) q.order = order_from_groups(*parts.g_idx, l.groups, l.cols);
  if (convention.zeros == GptqZeros::planar)
    unpack_planar(parts, l, q.order, q.codes);
  else
    unpack_columns(l.bits, parts.qweight->bytes, q.order, q.codes);
  return q;
}

GptqBytes encode_gptq(const Quantized& q, GptqZeros format) {
  const auto& affine = std::get<Affine>(q.params);
  const Shape s = q.shape();
  const int bits = affine.spec.bits;
  const int64_t group = affine.spec.group, groups = s.cols / group;
  const int less = format == GptqZeros::minus_one ? 1 : 0;
  assert(s.rows % kPackRun == 0 && s.cols % kPackRun == 0 && affine.scale.shape() == (Shape{groups, s.rows}));
  GptqBytes out;
  out.qweight.resize(static_cast<size_t>(q.codes.size() * bits / 8));
  if (format == GptqZeros::planar)
    pack_planar(bits, q.codes, q.order, out.qweight);
  else
    pack_columns(bits, q.codes, q.order, out.qweight);

  std::vector<uint8_t> fields(static_cast<size_t>(groups * s.rows), static_cast<uint8_t>(middle(bits) - less));
  if (!affine.spec.symmetric)
    std::transform(affine.zero.values().begin(), affine.zero.values().end(), fields.begin(), [&](uint8_t zero) {
      if (zero < less) throw std::logic_error("GPTQ format v1 cannot hold a zero point of 0");
      return static_cast<uint8_t>(zero - less);
    });
  std::vector<uint32_t> words(fields.size() * static_cast<size_t>(bits) / 32);
  if (format == GptqZeros::planar)
    pack_planar_fields(bits, fields, words);
  else
    pack_bits(bits, fields, words);
  put(out.qzeros, words.data(), words.size() * 4);

  out.scales.resize(static_cast<size_t>(affine.scale.size()) * 2);
  from_f32(DType::f16, affine.scale.values(), out.scales);

  std::vector<int32_t> group_of(static_cast<size_t>(s.cols));
  for (int64_t c = 0; c < s.cols; ++c)
    group_of[static_cast<size_t>(q.order.empty() ? c : q.order[static_cast<size_t>(c)])] =
        static_cast<int32_t>(c / group);
  out.ordered = !std::is_sorted(group_of.begin(), group_of.end());
  put(out.g_idx, group_of.data(), group_of.size() * 4);
  return out;
}

}  // namespace pare
