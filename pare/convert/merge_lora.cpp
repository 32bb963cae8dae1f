#include "pare/convert/merge_lora.h"

#include <fmt/format.h>

#include "pare/base/error.h"
#include "pare/convert/lora_adapter.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse_base(const std::string& what, const std::string& tensor, const LoraAdapter& adapter,
                              std::string expected = {}, std::string got = {}) {
  throw Error({.what = "the adapter is of another base: " + what,
               .where = tensor,
               .expected = std::move(expected),
               .got = std::move(got),
               .remedy = adapter.base.empty()
                             ? "give the model that the adapter was trained on"
                             : fmt::format("give the model that it was trained on: {}", adapter.base)});
}

// The spelling of a tensor in the checkpoint: as the adapter has it, or without the prefix that some files leave out.
std::string stored_name(const Checkpoint& base, const std::string& name, const LoraAdapter& adapter) {
  if (base.has(name)) {
    const auto alias = base.aliases().find(name);
    return alias == base.aliases().end() ? name : alias->second;
  }
  if (const size_t dot = name.find('.'); dot != std::string::npos && base.has(name.substr(dot + 1)))
    return name.substr(dot + 1);
  refuse_base("the base has no such tensor", name, adapter);
}

Shape outputs_by_inputs(const Checkpoint& base, const Config& config, const std::string& name) {
  const Shape stored = base.shape_of(name).value_or(Shape{});
  const Arch& arch = find_arch(config.architecture);
  const auto place = TensorNames(arch, base).place(name);
  const bool in_out = place && place->weight && place->tensor->transposed && !base.grid_of_weight(name);
  return in_out ? Shape{stored.cols, stored.rows} : stored;
}

}  // namespace

Plan plan_merge(std::shared_ptr<const Checkpoint> base, const fs::path& directory, const ConversionSettings& settings) {
  if (base->format() != Format::huggingface)
    throw Error({.what = "adapters are merged into Hugging Face directories",
                 .where = base->path().string(),
                 .remedy = "convert the base first: pare convert BASE DIR --to safetensors"});
  const auto adapter = std::make_shared<const LoraAdapter>(LoraAdapter::read(directory));
  const Config config = read_config(*base);
  Edits edits;
  for (const auto& [module, lora] : adapter->modules) {
    const std::string name = stored_name(*base, module + ".weight", *adapter);
    const Shape shape = outputs_by_inputs(*base, config, name);
    const Shape wanted = lora.embedding ? Shape{lora.a.cols(), lora.b.rows()} : Shape{lora.b.rows(), lora.a.cols()};
    if (shape != wanted)
      refuse_base("the shapes differ", name, *adapter, fmt::format("{} x {}", shape.rows, shape.cols),
                  fmt::format("{} x {}", wanted.rows, wanted.cols));
    const bool added = edits.emplace(name, [adapter, &lora = lora, name](Matrix& w) { merge(lora, w, name); }).second;
    if (!added) refuse_base("two of its modules are one tensor of the base (tied embeddings)", name, *adapter);
  }
  for (const auto& [tensor, values] : adapter->replaced) {
    const std::string name = stored_name(*base, tensor, *adapter);
    const Shape shape = base->shape_of(name).value_or(Shape{});
    if (shape != values.shape())
      refuse_base("the shapes differ", name, *adapter, fmt::format("{} x {}", shape.rows, shape.cols),
                  fmt::format("{} x {}", values.rows(), values.cols()));
    const bool in_out = outputs_by_inputs(*base, config, name) != shape;
    const auto replace = [adapter, &from = values, in_out](Matrix& w) { w = in_out ? transposed(from) : from; };
    if (!edits.emplace(name, replace).second) refuse_base("it adds to and replaces one tensor", name, *adapter);
  }
  return plan_conversion(std::move(base), settings, std::move(edits));
}

}  // namespace pare
