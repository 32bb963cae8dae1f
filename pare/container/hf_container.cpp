// An HF directory: safetensors in shards of limited size, their index, config.json, and the files carried along.
// Containers differ in how a quantized layer becomes tensors: GPTQ format v1 or v2, or not at all.

#include <fmt/format.h>

#include <atomic>
#include <map>
#include <mutex>
#include <stdexcept>

#include "pare/base/error.h"
#include "pare/base/mapped_file.h"
#include "pare/base/output.h"
#include "pare/container/bit_packing.h"
#include "pare/container/containers.h"
#include "pare/container/gptq_config.h"
#include "pare/container/gptq_tensors.h"
#include "pare/container/safetensors.h"
#include "pare/container/shard_index.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

std::string module_of(const OutputTensor& t) {
  constexpr std::string_view kWeight = ".weight";
  if (!t.name.ends_with(kWeight)) throw std::logic_error("a quantized tensor is no weight: " + t.name);
  return t.name.substr(0, t.name.size() - kWeight.size());
}

// The tensors in which a planned tensor is stored.
std::vector<SafetensorsSlot> slots_of(const OutputTensor& t) {
  if (!t.grid) return {{t.name, t.dtype, t.shape}};
  const auto* spec = std::get_if<AffineSpec>(&*t.grid);
  if (!spec || t.shape.size() != 2) throw std::logic_error("GPTQ cannot hold what is planned for " + t.name);
  const int64_t rows = t.shape[0], cols = t.shape[1];
  check_shape(*t.grid, {rows, cols}, t.name);
  if (rows % kPackRun != 0 || cols % kPackRun != 0)
    throw Error({.what = "GPTQ packs rows and columns in runs of 32",
                 .where = t.name,
                 .expected = "multiples of 32",
                 .got = fmt::format("{} x {}", rows, cols),
                 .remedy = "keep the tensor in floats (--skip)"});
  const int64_t groups = cols / (spec->group == 0 ? cols : spec->group);
  const std::string module = module_of(t);
  return {{module + ".qweight", DType::i32, {cols * spec->bits / 32, rows}},
          {module + ".qzeros", DType::i32, {groups, rows * spec->bits / 32}},
          {module + ".scales", DType::f16, {groups, rows}},
          {module + ".g_idx", DType::i32, {cols}}};
}

// Planned tensors in order, cut where a shard would grow beyond the limit; the parts of a layer stay together.
std::vector<std::vector<SafetensorsSlot>> shards_of(const OutputPlan& plan) {
  std::vector<std::vector<SafetensorsSlot>> shards(1);
  uint64_t filled = 0;
  for (const OutputTensor& t : plan.tensors) {
    const std::vector<SafetensorsSlot> slots = slots_of(t);
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

int64_t output_bytes(const OutputPlan& plan) {
  uint64_t total = 0;
  for (const auto& slots : shards_of(plan)) total += SafetensorsWriter::file_bytes(slots, metadata_of(plan, slots));
  return static_cast<int64_t>(total);
}

AffineSpec resolved(AffineSpec spec, int64_t cols) {
  if (spec.group == 0) spec.group = cols;
  return spec;
}

class HfWriter : public Writer {
 public:
  HfWriter(const fs::path& path, const OutputPlan& plan, bool overwrite, GptqZeros zeros)
      : directory_(path, overwrite), plan_(plan), zeros_(zeros) {
    const auto shards = shards_of(plan);
    for (size_t i = 0; i < shards.size(); ++i) open_shard(shards[i], shard_name(i, shards.size()));
    for (const OutputTensor& t : plan_.tensors) planned_.emplace(t.name, &t);
    if (shards.size() > 1)
      write_file(directory_.file("model.safetensors.index.json"), shard_index_json(index_, data_bytes_));
    for (const fs::path& file : plan.carried)
      write_file(directory_.file(file.filename().string()), read_text_file(file));
  }

  void add(const std::string& name, const Quantized& q) override {
    const OutputTensor& t = planned(name);
    if (!t.grid || q.grid() != Grid(resolved(std::get<AffineSpec>(*t.grid), q.shape().cols)) ||
        t.shape != std::vector<int64_t>{q.shape().rows, q.shape().cols} || (!q.order.empty() && !t.ordered))
      throw std::logic_error("the matrix is not as planned: " + name);
    const std::string module = module_of(t);
    const GptqBytes bytes = encode_gptq(q, zeros_);
    if (bytes.ordered) ordered_ = true;
    put(module + ".qweight", bytes.qweight);
    put(module + ".qzeros", bytes.qzeros);
    put(module + ".scales", bytes.scales);
    put(module + ".g_idx", bytes.g_idx);
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
      const Json quantization = gptq_config(plan_, zeros_, ordered_);
      config["quantization_config"] = quantization;
      write_file(directory_.file("quantize_config.json"), quantization.dump(2) + "\n");
    }
    write_file(directory_.file("config.json"), config.dump(2) + "\n");
  }

  OutputDirectory directory_;
  const OutputPlan plan_;
  GptqZeros zeros_;
  std::vector<std::unique_ptr<SafetensorsWriter>> shards_;
  std::map<std::string, size_t> shard_of_;
  std::map<std::string, const OutputTensor*> planned_;
  ShardIndex index_;
  uint64_t data_bytes_ = 0;
  std::atomic<bool> ordered_ = false;  // has any layer stored an order?
  bool sealed_ = false;
};

template <GptqZeros kZeros>
Verdict accept(const Grid& wanted, bool) {
  const auto* spec = std::get_if<AffineSpec>(&wanted);
  if (!spec)
    return {{},
            "GPTQ files hold integer codes in groups, not the blocks of GGUF",
            "choose an integer grid such as int4-g128, or the gguf container"};
  if (spec->bits != 2 && spec->bits != 3 && spec->bits != 4 && spec->bits != 8)
    return {{}, fmt::format("GPTQ files hold 2, 3, 4 or 8 bits, not {}", spec->bits), "choose --bits 2, 3, 4 or 8"};
  AffineSpec narrowed = *spec;
  if (kZeros == GptqZeros::minus_one && !spec->symmetric && narrowed.lowest_zero < 1) narrowed.lowest_zero = 1;
  return {narrowed, "", ""};
}

Verdict accept_none(const Grid&, bool) {
  return {{}, "plain safetensors hold floats only", "choose the gptq or the gguf container"};
}

template <GptqZeros kZeros>
std::unique_ptr<Writer> create(const fs::path& path, const OutputPlan& plan, bool overwrite) {
  return std::make_unique<HfWriter>(path, plan, overwrite, kZeros);
}

}  // namespace

const Container kGptqContainer{"gptq", accept<GptqZeros::minus_one>, output_bytes, create<GptqZeros::minus_one>};
const Container kGptqV2Container{"gptq_v2", accept<GptqZeros::plain>, output_bytes, create<GptqZeros::plain>};
const Container kSafetensorsContainer{"safetensors", accept_none, output_bytes, create<GptqZeros::minus_one>};

}  // namespace pare
