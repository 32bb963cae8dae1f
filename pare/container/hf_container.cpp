// An HF directory: safetensors in shards of limited size, their index, config.json, and the files carried along.
// Formats differ in how a quantized layer becomes tensors, and in what config.json says about it.

#include <fmt/format.h>

#include <atomic>
#include <map>
#include <mutex>
#include <stdexcept>

#include "pare/base/error.h"
#include "pare/base/mapped_file.h"
#include "pare/base/output.h"
#include "pare/container/containers.h"
#include "pare/container/hf_format.h"
#include "pare/container/safetensors.h"
#include "pare/container/shard_index.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

// The tensors in which a planned tensor is stored.
std::vector<SafetensorsSlot> slots_of(const HfFormat& format, const OutputTensor& t) {
  if (!t.grid) return {{t.name, t.dtype, t.shape}};
  const bool held = format.accept(*t.grid, t.ordered).grid.has_value();
  if (!held || t.shape.size() != 2 || !t.name.ends_with(".weight"))
    throw std::logic_error(fmt::format("{} cannot hold what is planned for {}", format.name, t.name));
  check_shape(*t.grid, {t.shape[0], t.shape[1]}, t.name);
  return format.slots(t);
}

// Planned tensors in order, cut where a shard would grow beyond the limit; the parts of a layer stay together.
std::vector<std::vector<SafetensorsSlot>> shards_of(const HfFormat& format, const OutputPlan& plan) {
  std::vector<std::vector<SafetensorsSlot>> shards(1);
  uint64_t filled = 0;
  for (const OutputTensor& t : plan.tensors) {
    const std::vector<SafetensorsSlot> slots = slots_of(format, t);
    uint64_t size = 0;
    for (const SafetensorsSlot& slot : slots) size += slot_bytes(slot);
    if (!shards.back().empty() && filled + size > static_cast<uint64_t>(plan.max_shard_bytes)) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().insert(shards.back().end(), slots.begin(), slots.end());
    filled += size;
  }
  return shards;
}

std::string shard_name(size_t index, size_t count) {
  return count == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

std::map<std::string, std::string> metadata_of(const OutputPlan& plan, const std::vector<SafetensorsSlot>& slots) {
  std::map<std::string, std::string> out = {{"format", "pt"}};  // transformers refuses files without it
  for (const auto& [alias, stored] : plan.aliases)
    for (const SafetensorsSlot& slot : slots)
      if (slot.name == stored) out.emplace(alias, stored);
  return out;
}

int64_t output_bytes(const HfFormat& format, const OutputPlan& plan) {
  if (format.config) format.config(plan, {});  // says now what it could not say later
  uint64_t total = 0;
  for (const auto& slots : shards_of(format, plan))
    total += SafetensorsWriter::file_bytes(slots, metadata_of(plan, slots));
  return static_cast<int64_t>(total);
}

// A group of 0 columns is the whole row.
Grid resolved(Grid grid, int64_t cols) {
  if (auto* affine = std::get_if<AffineSpec>(&grid); affine && affine->group == 0) affine->group = cols;
  if (auto* book = std::get_if<CodebookSpec>(&grid); book && book->group == 0) book->group = cols;
  return grid;
}

class HfWriter : public Writer {
 public:
  HfWriter(const HfFormat& format, const fs::path& path, const OutputPlan& plan, bool overwrite)
      : format_(format), directory_(path, overwrite), plan_(plan) {
    const auto shards = shards_of(format, plan);
    for (size_t i = 0; i < shards.size(); ++i) open_shard(shards[i], shard_name(i, shards.size()));
    for (const OutputTensor& t : plan_.tensors) planned_.emplace(t.name, &t);
    if (shards.size() > 1)
      write_file(directory_.file("model.safetensors.index.json"), shard_index_json(index_, data_bytes_));
    for (const fs::path& file : plan.carried)
      write_file(directory_.file(file.filename().string()), read_text_file(file));
    for (const auto& [name, text] : plan.made) write_file(directory_.file(name), text);
  }

  void add(const std::string& name, const Quantized& q) override {
    const OutputTensor& t = planned(name);
    if (!t.grid || q.grid() != resolved(*t.grid, q.shape().cols) ||
        t.shape != std::vector<int64_t>{q.shape().rows, q.shape().cols} || (!q.order.empty() && !t.ordered))
      throw std::logic_error("the matrix is not as planned: " + name);
    if (!q.order.empty()) ordered_ = true;
    for (const HfPart& part : format_.encode(t, q)) put(part.name, part.bytes);
  }
  void add(const std::string& name, std::span<const std::byte> bytes) override {
    if (planned(name).grid) throw std::logic_error("the tensor was planned on a grid: " + name);
    put(name, bytes);
  }

  fs::path staged() const override { return directory_.file("config.json").parent_path(); }
  void add_file(const std::string& name, const std::string& text) override { write_file(directory_.file(name), text); }

  void seal() override {
    if (sealed_) return;
    for (const auto& shard : shards_) shard->commit();  // within the temporary directory
    write_config();
    sealed_ = true;
  }
  void commit() override {
    seal();
    directory_.commit();
  }

 private:
  void open_shard(const std::vector<SafetensorsSlot>& slots, const std::string& name) {
    for (const SafetensorsSlot& slot : slots) {
      data_bytes_ += slot_bytes(slot);
      if (!index_.weight_map.emplace(slot.name, name).second)
        throw std::logic_error("two tensors of one name: " + slot.name);
      shard_of_.emplace(slot.name, shards_.size());
    }
    shards_.push_back(std::make_unique<SafetensorsWriter>(directory_.file(name), slots, metadata_of(plan_, slots)));
  }
  const OutputTensor& planned(const std::string& name) const {
    const auto at = planned_.find(name);
    if (at == planned_.end()) throw std::logic_error("no such tensor was planned: " + name);
    return *at->second;
  }
  void put(const std::string& name, std::span<const std::byte> bytes) { shards_[shard_of_.at(name)]->add(name, bytes); }

  void write_config() {
    Json config = plan_.config.is_null() ? Json::object() : plan_.config;
    const bool quantized = std::any_of(plan_.tensors.begin(), plan_.tensors.end(),
                                       [](const OutputTensor& t) { return t.grid.has_value(); });
    if (quantized) {
      const Json quantization = format_.config(plan_, {.ordered = ordered_});
      for (const std::string_view key : format_.config_keys)
        if (!key.empty()) config[std::string(key)] = quantization;
      if (!format_.config_file.empty())
        write_file(directory_.file(std::string(format_.config_file)), quantization.dump(2) + "\n");
    }
    write_file(directory_.file("config.json"), config.dump(2) + "\n");
  }

  const HfFormat& format_;
  OutputDirectory directory_;
  const OutputPlan plan_;
  std::vector<std::unique_ptr<SafetensorsWriter>> shards_;
  std::map<std::string, size_t> shard_of_;
  std::map<std::string, const OutputTensor*> planned_;
  ShardIndex index_;
  uint64_t data_bytes_ = 0;
  std::atomic<bool> ordered_ = false;  // has any layer stored an order?
  bool sealed_ = false;
};

Verdict accept_none(const Grid&, bool) {
  return {{}, "plain safetensors hold floats only", "choose the gptq or the gguf container"};
}

// Containers are plain functions: one instance of these for each row.
template <const HfFormat& kFormat>
int64_t bytes_in(const OutputPlan& plan) {
  return output_bytes(kFormat, plan);
}
template <const HfFormat& kFormat>
std::unique_ptr<Writer> create(const fs::path& path, const OutputPlan& plan, bool overwrite) {
  return std::make_unique<HfWriter>(kFormat, path, plan, overwrite);
}
template <const HfFormat& kFormat>
Container container_of() {
  return {kFormat.name,  kFormat.accept,     bytes_in<kFormat>, create<kFormat>,
          kFormat.place, kFormat.embeddings, kFormat.runtimes};
}

}  // namespace

const HfFormat kFloatFormat{.name = "safetensors", .accept = accept_none};

std::vector<Container> hf_containers() {
  return {container_of<kGptqFormat>(), container_of<kGptqV2Format>(), container_of<kGptqPlanarFormat>(),
          container_of<kAwqFormat>(),  container_of<kCtFormat>(),     container_of<kCtW8A8Format>(),
          container_of<kBnbFormat>(),  container_of<kMlxFormat>(),    container_of<kFloatFormat>()};
}

}  // namespace pare
