#include "pare/container/hf_format.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>

#include "pare/base/error.h"

namespace pare {

std::span<const HfFormat* const> all_hf_formats() {
  static constexpr const HfFormat* kAll[] = {&kGptqFormat,   &kGptqV2Format, &kGptqPlanarFormat, &kAwqFormat,
                                             &kCtFormat,     &kCtW8A8Format, &kBnbFormat,        &kFp8Format,
                                             &kGptOssFormat, &kMlxFormat,    &kFloatFormat};
  return kAll;
}

std::string HfFiles::method() const { return text_of(quantization, "quant_method"); }

void refuse_tensor(const StoredTensor& t, std::string what, std::string expected, std::string got, std::string remedy) {
  throw Error({.what = std::move(what),
               .where = fmt::format("{}, tensor {}", t.file.string(), t.name),
               .expected = std::move(expected),
               .got = std::move(got),
               .remedy = std::move(remedy)});
}

void refuse_config(const HfFiles& files, std::string what, std::string expected, std::string got, std::string remedy) {
  throw Error({.what = std::move(what),
               .where = files.where + ", quantization_config",
               .expected = std::move(expected),
               .got = std::move(got),
               .remedy = std::move(remedy)});
}

void require_tensor(const StoredTensor& t, std::string_view type, size_t rank) {
  if (!type.empty() && t.type != type)
    refuse_tensor(t, "the tensor has another type than its format uses", std::string(type), t.type);
  const bool positive = std::all_of(t.shape.begin(), t.shape.end(), [](int64_t n) { return n > 0; });
  if (t.shape.size() != rank || !positive)
    refuse_tensor(t, "the tensor has a wrong shape", fmt::format("{} dimensions, none empty", rank),
                  fmt::format("{}", t.shape));
}

void require_shape(const StoredTensor& t, std::string_view type, const std::vector<int64_t>& shape) {
  require_tensor(t, type, shape.size());
  if (t.shape != shape)
    refuse_tensor(t, "the tensor does not fit the others of its layer", fmt::format("{}", shape),
                  fmt::format("{}", t.shape));
}

std::map<std::string, HfLayer> find_layers(const HfFiles& files, const HfSuffixes& suffixes) {
  const std::string key = "." + std::string(suffixes.all.front());
  std::map<std::string, HfLayer> out;
  for (const StoredTensor& t : files.tensors) {
    if (!t.name.ends_with(key) || (suffixes.takes && !suffixes.takes(t))) continue;
    HfLayer layer{t.name.substr(0, t.name.size() - key.size()), {}};
    for (size_t i = 0; i < suffixes.all.size(); ++i) {
      const std::string name = layer.module + "." + std::string(suffixes.all[i]);
      layer.parts.push_back(files.find(name));
      if (i < suffixes.required && !layer.parts.back())
        throw Error({.what = "a quantized layer is incomplete",
                     .where = fmt::format("{}, {}", t.file.string(), layer.module),
                     .expected = name,
                     .remedy = "the checkpoint is damaged, or of a kind that is not read yet"});
    }
    const StoredTensor* plain = files.find(layer.module + ".weight");
    if (plain && std::find(layer.parts.begin(), layer.parts.end(), plain) == layer.parts.end())
      throw Error({.what = "the checkpoint holds a layer twice, quantized and not",
                   .where = t.file.string(),
                   .got = layer.module,
                   .remedy = "the checkpoint is damaged"});
    out.emplace(layer.module + ".weight", std::move(layer));
  }
  return out;
}

std::string text_of(const Json& object, const char* key) {
  if (!object.is_object()) return "";
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
}
bool flag_of(const Json& object, const char* key, bool otherwise) {
  if (!object.is_object()) return otherwise;
  const auto at = object.find(key);
  return at != object.end() && at->is_boolean() ? at->get<bool>() : otherwise;
}
int64_t integer_of(const Json& object, const char* key, int64_t otherwise) {
  if (!object.is_object()) return otherwise;
  const auto at = object.find(key);
  return at != object.end() && at->is_number_integer() ? at->get<int64_t>() : otherwise;
}

std::string module_of_weight(const std::string& name) {
  constexpr std::string_view kWeight = ".weight";
  return name.ends_with(kWeight) ? name.substr(0, name.size() - kWeight.size()) : name;
}

bool in_block(std::string_view name) {
  for (size_t begin = 0; begin < name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (!part.empty() && std::all_of(part.begin(), part.end(), [](unsigned char c) { return std::isdigit(c) != 0; }))
      return true;
    begin = end + 1;
  }
  return false;
}

std::vector<std::string> modules_kept_float(const OutputPlan& plan) {
  std::vector<std::string> out;
  for (const OutputTensor& t : plan.tensors)
    if (!t.grid && t.shape.size() == 2 && t.name.ends_with(".weight") && in_block(t.name))
      out.push_back(module_of_weight(t.name));
  return out;
}

namespace {

[[noreturn]] void refuse_group(const OutputTensor& t, std::string_view format, int64_t expected, int64_t got) {
  throw Error({.what = fmt::format("{} files have one group size for all layers", format),
               .where = t.name,
               .expected = std::to_string(expected),
               .got = std::to_string(got),
               .remedy = "choose one group size"});
}

}  // namespace

int64_t one_group_size(const OutputPlan& plan, std::string_view format) {
  std::optional<int64_t> group;           // of layers with several groups in a row
  std::vector<const OutputTensor*> rows;  // layers with one
  for (const OutputTensor& t : plan.tensors) {
    const auto* spec = t.grid ? std::get_if<AffineSpec>(&*t.grid) : nullptr;
    if (!spec) continue;
    if (spec->group == 0 || spec->group == t.shape.back()) {
      rows.push_back(&t);
      continue;
    }
    if (group && *group != spec->group) refuse_group(t, format, *group, spec->group);
    group = spec->group;
  }
  const bool one_width = std::all_of(rows.begin(), rows.end(), [&](const OutputTensor* t) {
    return std::get<AffineSpec>(*t->grid).group > 0 && t->shape.back() == rows.front()->shape.back();
  });
  if (!group) return !rows.empty() && one_width ? rows.front()->shape.back() : -1;
  for (const OutputTensor* t : rows)
    if (t->shape.back() != *group) refuse_group(*t, format, *group, t->shape.back());
  return *group;
}

DType scale_type(const StoredTensor& t) {
  const auto dtype = dtype_from_name(t.type);
  if (!dtype || (*dtype != DType::f16 && *dtype != DType::bf16 && *dtype != DType::f32))
    refuse_tensor(t, "scales have a type that is not supported", "f16, bf16 or f32", t.type);
  return *dtype;
}

ScaleKind scale_kind(DType type) {
  return type == DType::f32 ? ScaleKind::f32 : type == DType::bf16 ? ScaleKind::bf16 : ScaleKind::f16;
}
DType scale_dtype(ScaleKind kind) {
  return kind == ScaleKind::f32 ? DType::f32 : kind == ScaleKind::bf16 ? DType::bf16 : DType::f16;
}

std::vector<int32_t> order_from_groups(const StoredTensor& t, int64_t groups, int64_t cols) {
  require_shape(t, "i32", {cols});
  std::vector<int32_t> group(static_cast<size_t>(cols));
  std::memcpy(group.data(), t.bytes.data(), t.bytes.size());
  std::vector<int64_t> members(static_cast<size_t>(groups));
  for (size_t k = 0; k < group.size(); ++k) {
    const int64_t g = group[k] < 0 ? group[k] + groups : group[k];  // as the reference's indexing
    if (g < 0 || g >= groups)
      refuse_tensor(t, "a column belongs to a group that does not exist", fmt::format("0 to {}", groups - 1),
                    fmt::format("{} at {}", group[k], k));
    group[k] = static_cast<int32_t>(g);
    ++members[static_cast<size_t>(g)];
  }
  for (size_t g = 0; g < members.size(); ++g)
    if (members[g] * groups != cols)
      refuse_tensor(t, "the groups have different sizes", fmt::format("{} columns in each", cols / groups),
                    fmt::format("{} in group {}", members[g], g), "such files are not supported");
  if (std::is_sorted(group.begin(), group.end())) return {};
  std::vector<int32_t> order(group.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return group[static_cast<size_t>(a)] < group[static_cast<size_t>(b)]; });
  return order;
}

void read_scales(const StoredTensor& t, std::span<float> out) {
  to_f32(scale_type(t), t.bytes, out);
  const auto bad = std::find_if(out.begin(), out.end(), [](float s) { return !std::isfinite(s); });
  if (bad != out.end())
    refuse_tensor(t, "a scale is not finite", "finite numbers", fmt::format("{} at {}", *bad, bad - out.begin()));
}

std::vector<std::byte> bytes_of(const void* data, size_t size) {
  std::vector<std::byte> out(size);
  if (size > 0) std::memcpy(out.data(), data, size);
  return out;
}

std::vector<std::byte> bytes_as(DType type, std::span<const float> values) {
  std::vector<std::byte> out(values.size() * static_cast<size_t>(info(type).bits / 8));
  from_f32(type, values, out);
  return out;
}

}  // namespace pare
