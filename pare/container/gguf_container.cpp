// One GGUF file, and small files beside it.

#include <fmt/format.h>

#include <map>
#include <stdexcept>

#include "pare/base/error.h"
#include "pare/base/output.h"
#include "pare/container/containers.h"
#include "pare/container/gguf.h"
#include "pare/container/gguf_blocks.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

Verdict accept(const Grid& wanted, bool ordered) {
  const Grid* grid = gguf_grid(wanted);
  if (!grid)
    return {{},
            "GGUF holds its own block types, not codes in groups of any size",
            "choose q4_k, q6_k, q8_0 or another type of GGUF, or another container"};
  if (ordered)
    return {
        {}, "GGUF cannot store an order of the columns", "visit the columns by importance without storing the order"};
  return {*grid, "", ""};
}

const GgmlTypeInfo* type_of(const OutputTensor& t) {
  if (t.grid) {
    if (const GgmlTypeInfo* type = ggml_type_of(*t.grid)) return type;
    throw std::logic_error("GGUF has no type for the grid planned for " + t.name);
  }
  if (const GgmlTypeInfo* type = find_ggml_type(info(t.dtype).name)) return type;
  throw Error({.what = "GGUF cannot hold numbers of this type",
               .where = t.name,
               .got = std::string(info(t.dtype).name),
               .remedy = "convert the tensor to f32, f16 or bf16"});
}

std::vector<GgufSlot> slots_of(const OutputPlan& plan) {
  std::vector<GgufSlot> slots;
  for (const OutputTensor& t : plan.tensors) slots.push_back({t.name, type_of(t), t.shape});
  return slots;
}

int64_t output_bytes(const OutputPlan& plan) {
  return static_cast<int64_t>(GgufWriter::file_bytes(plan.metadata, slots_of(plan)));
}

class GgufContainerWriter : public Writer {
 public:
  GgufContainerWriter(const fs::path& path, const OutputPlan& plan, bool overwrite)
      : path_(path), overwrite_(overwrite), writer_(checked(path, overwrite), plan.metadata, slots_of(plan)) {
    for (const OutputTensor& t : plan.tensors) planned_.emplace(t.name, t);
  }

  void add(const std::string& name, const Quantized& q) override {
    const auto planned = planned_.find(name);
    if (planned == planned_.end() || !planned->second.grid || q.grid() != *planned->second.grid || !q.order.empty() ||
        planned->second.shape != std::vector<int64_t>{q.shape().rows, q.shape().cols})
      throw std::logic_error("the matrix is not as planned: " + name);
    std::vector<std::byte> bytes(ggml_bytes(*type_of(planned->second), planned->second.shape));
    encode_blocks(q, bytes);
    writer_.add(name, bytes);
  }
  void add(const std::string& name, std::span<const std::byte> bytes) override { writer_.add(name, bytes); }

  fs::path staged() const override { return writer_.staged(); }

  void add_file(const std::string& name, const std::string& text) override {
    const fs::path beside = companion(name);
    check_output_path(beside, overwrite_);
    beside_.push_back({beside, std::make_unique<OutputFile>(beside)});
    beside_.back().file->append(text);
  }

  void seal() override { writer_.seal(); }

  void commit() override {
    writer_.seal();
    try {
      for (Companion& c : beside_) {
        c.file->commit();
        c.appeared = true;
      }
      writer_.commit();
    } catch (...) {
      std::error_code ignored;
      for (const Companion& c : beside_)
        if (c.appeared) fs::remove(c.path, ignored);
      throw;
    }
  }

 private:
  struct Companion {
    fs::path path;
    std::unique_ptr<OutputFile> file;
    bool appeared = false;
  };

  static fs::path checked(const fs::path& path, bool overwrite) {
    if (!path.has_filename() || fs::is_directory(path))
      throw Error({.what = "a GGUF output is one file",
                   .where = path.string(),
                   .expected = "a file name such as model.gguf",
                   .got = "a directory",
                   .remedy = "give a file name that ends in .gguf",
                   .code = ExitCode::usage});
    check_output_path(path, overwrite);
    return path;
  }
  fs::path companion(const std::string& name) const {
    return path_.parent_path() / fmt::format("{}.{}", path_.stem().string(), name);
  }

  fs::path path_;
  bool overwrite_;
  std::map<std::string, OutputTensor> planned_;
  GgufWriter writer_;
  std::vector<Companion> beside_;
};

std::unique_ptr<Writer> create(const fs::path& path, const OutputPlan& plan, bool overwrite) {
  return std::make_unique<GgufContainerWriter>(path, plan, overwrite);
}

std::vector<RuntimeVerdict> runtimes(const OutputPlan&) {
  return {
      {"llama.cpp", true}, {"ollama", true}, {"transformers", false, "it expands GGUF files to floats when loading"}};
}

}  // namespace

const Container kGgufContainer{"gguf", accept, output_bytes, create, nullptr, true, runtimes};

}  // namespace pare
