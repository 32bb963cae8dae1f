#include "pare/container/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <fstream>

#include "pare/base/error.h"
#include "pare/base/mapped_file.h"
#include "pare/base/threads.h"
#include "pare/container/gguf.h"
#include "pare/container/torch_file.h"

namespace pare {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLookedFor =
    "model.safetensors or pytorch_model.bin, or an index of shards, with config.json, or one .gguf file";

std::string first_bytes(const fs::path& path, size_t count) {
  std::string bytes(count, '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(bytes.data(), static_cast<std::streamsize>(count));
  bytes.resize(static_cast<size_t>(in.gcount()));
  return bytes;
}

std::vector<fs::path> files_ending(const fs::path& directory, const std::string& suffix) {
  std::vector<fs::path> out;
  std::error_code code;
  for (auto at = fs::directory_iterator(directory, code); !code && at != fs::directory_iterator(); at.increment(code))
    if (at->path().filename().string().ends_with(suffix)) out.push_back(at->path());
  if (code) throw Error({.what = "cannot list the directory", .where = directory.string(), .got = code.message()});
  std::sort(out.begin(), out.end());
  return out;
}

[[noreturn]] void refuse_several(const fs::path& directory, const std::vector<fs::path>& files, const char* remedy) {
  std::vector<std::string> names;
  for (const fs::path& f : files) names.push_back(f.filename().string());
  throw Error(
      {.what = "the directory holds several weight files and nothing says which to read",
       .where = directory.string(),
       .expected = kLookedFor,
       .got = fmt::format("{}", fmt::join(names.begin(), names.begin() + std::min<long>(5, std::ssize(names)), ", ")) +
              (names.size() > 5 ? ", …" : ""),
       .remedy = remedy});
}

// What training leaves beside the weights, of the same kind of file.
bool is_training_state(const fs::path& file) {
  const std::string name = file.filename().string();
  for (const char* start : {"training_args", "optimizer", "scheduler", "rng_state", "scaler"})
    if (name.starts_with(start)) return true;
  return false;
}

// The only index, or the only file of weights, that torch.save wrote under names of its own.
std::optional<fs::path> torch_weights(const fs::path& directory) {
  if (const auto indices = files_ending(directory, ".bin.index.json"); indices.size() == 1) return indices.front();
  for (const char* suffix : {".bin", ".pt", ".pth"}) {
    std::vector<fs::path> files = files_ending(directory, suffix);
    std::erase_if(files, is_training_state);
    if (files.size() == 1) return files.front();
    if (files.size() > 1) refuse_several(directory, files, "fetch the index (pytorch_model.bin.index.json) as well");
  }
  return std::nullopt;
}

std::shared_ptr<const Checkpoint> open_directory(const fs::path& directory) {
  for (const char* name :
       {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"})
    if (fs::exists(directory / name)) return open_huggingface(directory, directory / name);
  if (const auto indices = files_ending(directory, ".safetensors.index.json"); indices.size() == 1)
    return open_huggingface(directory, indices.front());
  const auto safetensors = files_ending(directory, ".safetensors");
  if (safetensors.size() == 1) return open_huggingface(directory, safetensors.front());
  if (safetensors.size() > 1)
    refuse_several(directory, safetensors, "fetch the index (model.safetensors.index.json) as well");
  const auto ggufs = files_ending(directory, ".gguf");
  if (ggufs.size() == 1) return open_gguf(ggufs.front());
  if (ggufs.size() > 1 && gguf_parts(ggufs.front()) == ggufs) return open_gguf(ggufs.front());
  if (ggufs.size() > 1) refuse_several(directory, ggufs, "give the .gguf file itself");
  if (const auto torch = torch_weights(directory)) return open_huggingface(directory, *torch);
  throw Error({.what = "no model here",
               .where = directory.string(),
               .expected = kLookedFor,
               .remedy = "give a Hugging Face model directory or a .gguf file"});
}

// A header of JSON behind a length that is no letter soup: what a safetensors file starts with.
bool looks_like_safetensors(const std::string& start, const fs::path& path) {
  if (path.extension() == ".safetensors") return true;
  return start.size() > 8 && start[8] == '{' && start[6] == '\0' && start[7] == '\0';
}

std::shared_ptr<const Checkpoint> open_file(const fs::path& file) {
  const std::string start = first_bytes(file, 16);
  if (start.starts_with("GGUF")) return open_gguf(file);
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  if (looks_like_safetensors(start, file) || TorchFile::is_one(start)) return open_huggingface(folder, file);
  if (file.filename() == "config.json" || file.filename().string().ends_with(".index.json"))
    return open_directory(folder);
  throw Error({.what = "neither a safetensors, nor a PyTorch, nor a GGUF file",
               .where = file.string(),
               .expected = kLookedFor,
               .remedy = "give a Hugging Face model directory or a .gguf file"});
}

}  // namespace

std::shared_ptr<const Checkpoint> Checkpoint::open(const fs::path& path) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  if (!fs::exists(status))
    throw Error({.what = "no such file or directory",
                 .where = path.string(),
                 .expected = kLookedFor,
                 .remedy = "check the path"});
  return fs::is_directory(status) ? open_directory(path) : open_file(path);
}

const StoredTensor* Checkpoint::find(const std::string& name) const {
  const auto at = index_.find(name);
  return at == index_.end() ? nullptr : &tensors_[at->second];
}

void Checkpoint::add_tensor(StoredTensor tensor) {
  const bool added = index_.emplace(tensor.name, tensors_.size()).second;
  assert(added);
  static_cast<void>(added);
  tensors_.push_back(std::move(tensor));
}

std::vector<std::string> Checkpoint::weights() const {
  std::vector<std::string> out;
  for (const StoredTensor& t : tensors_) out.push_back(t.name);
  return out;
}

int64_t Checkpoint::bytes_of(const std::string& name) const {
  int64_t bytes = 0;
  for (const StoredTensor* part : parts_of(name)) bytes += static_cast<int64_t>(part->bytes.size());
  return bytes;
}

void Checkpoint::forget(const std::string& name) const {
  for (const StoredTensor* part : parts_of(name)) forget_pages(part->bytes);
}

Shape matrix_shape(const std::vector<int64_t>& shape) {
  if (shape.empty()) return {1, 1};
  Shape out{1, shape.back()};
  for (size_t d = 0; d + 1 < shape.size(); ++d) out.rows *= shape[d];
  return out;
}

int64_t FloatTensor::size() const { return matrix_shape(shape).size(); }

Matrix FloatTensor::to_matrix() const {
  if (shape.size() > 2)
    throw Error({.what = "the tensor is no matrix",
                 .expected = "1 or 2 dimensions",
                 .got = fmt::format("{}", shape),
                 .remedy = "such layers are not supported yet"});
  if (!info(dtype).floating && info(dtype).bits % 8 != 0)
    throw Error({.what = "numbers of this type are not read", .got = std::string(info(dtype).name)});
  if (dtype == DType::c64) throw Error({.what = "complex numbers are not read"});
  const Shape s = matrix_shape(shape);
  Matrix out(s.rows, s.cols);
  constexpr int64_t kPiece = int64_t{1} << 18;  // elements
  const auto width = static_cast<size_t>(info(dtype).bits / 8);
  parallel_for((out.size() + kPiece - 1) / kPiece, [&](int64_t p) {
    const auto first = static_cast<size_t>(p * kPiece);
    const auto count = static_cast<size_t>(std::min(kPiece, out.size() - p * kPiece));
    to_f32(dtype, bytes.subspan(first * width, count * width), out.values().subspan(first, count));
  });
  return out;
}

}  // namespace pare
