// Checkpoints of a few tensors made by hand.
#pragma once

#include <map>

#include "pare/container/checkpoint.h"
#include "pare/container/container.h"
#include "pare/container/safetensors.h"
#include "tests/container/files.h"

namespace pare::test {

class MadeFile : public ::testing::Test {
 protected:
  struct Stored {
    DType type;
    std::vector<int64_t> shape;
    std::string bytes;
  };
  using Tensors = std::map<std::string, Stored>;

  // `config` is the whole of config.json.
  void put(const Tensors& tensors, const std::string& config) {
    std::vector<SafetensorsSlot> slots;
    for (const auto& [name, t] : tensors) slots.push_back({name, t.type, t.shape});
    SafetensorsWriter writer(directory_ / "model.safetensors", slots);
    for (const auto& [name, t] : tensors) writer.add(name, bytes_of(t.bytes));
    writer.commit();
    write_bytes(directory_ / "config.json", config);
  }
  Quantized load(const std::string& name = "m.weight") {
    const Weight weight = Checkpoint::open(directory_.path())->load(name);
    return std::get<Quantized>(weight);
  }
  std::string refusal(const Tensors& tensors, const std::string& config, const std::string& name = "m.weight") {
    put(tensors, config);
    return error_of([&] { load(name); });
  }
  // The tensors of a golden file that begin with `prefix`, which becomes `as`.
  static Tensors golden(const std::filesystem::path& path, const std::string& prefix, const std::string& as) {
    Tensors out;
    const auto file = SafetensorsFile::open(path);
    for (const SafetensorsEntry& e : file->entries())
      if (e.name.starts_with(prefix)) out[as + e.name.substr(prefix.size())] = {e.dtype, e.shape, text_of(e.bytes)};
    return out;
  }
  static std::vector<float> floats(const Stored& t) {
    std::vector<float> out(static_cast<size_t>(matrix_shape(t.shape).size()));
    to_f32(t.type, bytes_of(t.bytes), out);
    return out;
  }
  // One matrix written by a container, as a directory.
  std::shared_ptr<const Checkpoint> written(const std::string& container, const Quantized& q, DType floats = DType::f16,
                                            const std::string& folder = "out") {
    OutputPlan plan;
    plan.tensors = {{"m.weight", {q.shape().rows, q.shape().cols}, q.grid(), floats, !q.order.empty()}};
    auto writer = find_container(container).create(directory_ / folder, plan, false);
    writer->add("m.weight", q);
    writer->commit();
    return Checkpoint::open(directory_ / folder);
  }
  TemporaryDirectory directory_;
};

}  // namespace pare::test
