#include "pare/container/torch_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <tuple>

#include "pare/base/error.h"
#include "pare/container/torch_pickle.h"
#include "pare/container/zip_archive.h"

namespace pare {
namespace {

constexpr std::string_view kLegacyStart = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
constexpr std::string_view kPickle = "/data.pkl";
constexpr uint64_t kFreeCopies = uint64_t{16} << 20;  // bytes of copies beyond the file's own size

[[noreturn]] void fail(const std::string& where, std::string what, std::string expected, std::string got) {
  throw Error({.what = std::move(what),
               .where = where,
               .expected = std::move(expected),
               .got = std::move(got),
               .remedy = "the file is damaged, or not a state dict; save the model as safetensors"});
}

// What stands in front of "/data.pkl".
std::string root_of(const ZipArchive& zip, const std::string& where) {
  std::string root;
  for (const auto& [name, bytes] : zip.entries()) {
    if (name.ends_with("/constants.pkl"))
      fail(where, "the file is a TorchScript program, not a checkpoint", "a state dict", std::string(name));
    if (!name.ends_with(kPickle)) continue;
    if (!root.empty()) fail(where, "the archive holds two checkpoints", "one data.pkl", std::string(name));
    root = name.substr(0, name.size() - kPickle.size());
  }
  if (root.empty()) fail(where, "the archive holds no PyTorch checkpoint", "an entry …/data.pkl", "none");
  return root;
}

void check_byte_order(const ZipArchive& zip, const std::string& root, const std::string& where) {
  const auto* order = zip.find(root + "/byteorder");
  if (!order) return;  // older files are little-endian
  const std::string_view text(reinterpret_cast<const char*>(order->data()), order->size());
  if (text != "little")
    fail(where, "the numbers are stored in another byte order", "little", std::string(text.substr(0, 16)));
}

bool is_contiguous(const TorchView& view) {
  int64_t expected = 1;
  for (size_t d = view.shape.size(); d-- > 0;) {
    if (view.shape[d] != 1 && view.strides[d] != expected) return false;
    expected *= view.shape[d];
  }
  return true;
}

// Elements in order of their places, wherever they lie in the storage.
void gather(const TorchView& view, std::span<const std::byte> storage, size_t width, std::span<std::byte> out) {
  std::vector<int64_t> at(view.shape.size(), 0);
  int64_t element = view.offset;
  for (size_t to = 0; to < out.size(); to += width) {
    std::memcpy(out.data() + to, storage.data() + static_cast<size_t>(element) * width, width);
    for (size_t d = at.size(); d-- > 0;) {
      element += view.strides[d];
      if (++at[d] < view.shape[d]) break;
      element -= view.strides[d] * view.shape[d];
      at[d] = 0;
    }
  }
}

// One file's tensors, checked against its storages.
class Reader {
 public:
  Reader(const ZipArchive& zip, std::string root, std::string where, uint64_t file_bytes)
      : zip_(zip), root_(std::move(root)), where_(std::move(where)), copies_left_(file_bytes + kFreeCopies) {}

  // The tensor's bytes: a part of the file, or of a copy that joins `copies`.
  std::span<const std::byte> read(const TorchView& view, std::vector<std::shared_ptr<const MappedFile>>& copies) {
    const std::string where = fmt::format("{}, tensor {}", where_, view.name);
    const std::span<const std::byte> storage = storage_of(view, where);
    const auto width = static_cast<uint64_t>(info(view.dtype).bits / 8);
    const uint64_t elements = check(view, storage.size() / width, where);
    if (elements == 0) return {};
    if (is_contiguous(view)) return storage.subspan(static_cast<uint64_t>(view.offset) * width, elements * width);
    if (elements > copies_left_ / width)
      fail(where, "the strided tensors are larger than the file", fmt::format("at most {} bytes more", copies_left_),
           fmt::format("{}", view.shape));
    copies_left_ -= elements * width;
    copies.push_back(
        MappedFile::in_memory(elements * width, [&](std::span<std::byte> out) { gather(view, storage, width, out); }));
    return copies.back()->bytes();
  }

 private:
  std::span<const std::byte> storage_of(const TorchView& view, const std::string& where) const {
    const auto* storage = zip_.find(fmt::format("{}/data/{}", root_, view.storage));
    if (!storage)
      fail(where, "the archive lacks a tensor's storage", fmt::format("{}/data/{}", root_, view.storage),
           "no such entry");
    if (storage->size() != view.storage_bytes)
      fail(where, "a storage is not as large as the pickle says", fmt::format("{} bytes", view.storage_bytes),
           fmt::format("{} bytes", storage->size()));
    return *storage;
  }

  // Number of elements. Every one of them lies within the storage.
  static uint64_t check(const TorchView& view, uint64_t stored, const std::string& where) {
    const auto outside = [&]() {
      fail(where, "the tensor reaches outside its storage", fmt::format("{} elements", stored),
           fmt::format("offset {}, size {}, stride {}", view.offset, view.shape, view.strides));
    };
    if (view.shape.size() != view.strides.size() || view.offset < 0) outside();
    uint64_t elements = 1;
    int64_t last = view.offset;
    bool fits = true, empty = false;
    for (size_t d = 0; d < view.shape.size(); ++d) {
      if (view.shape[d] < 0 || view.strides[d] < 0) outside();
      empty = empty || view.shape[d] == 0;
      int64_t reach = 0;
      fits = fits && !__builtin_mul_overflow(elements, static_cast<uint64_t>(view.shape[d]), &elements) &&
             !__builtin_mul_overflow(view.shape[d] - 1, view.strides[d], &reach) &&
             !__builtin_add_overflow(last, reach, &last);
    }
    if (empty) return 0;
    if (!fits || static_cast<uint64_t>(last) >= stored) outside();
    return elements;
  }

  const ZipArchive& zip_;
  std::string root_, where_;
  uint64_t copies_left_;  // bytes
};

}  // namespace

bool TorchFile::is_one(std::string_view start) {
  return start.starts_with(kZipStart) || start.starts_with(kLegacyStart.substr(0, 4));
}

std::shared_ptr<const TorchFile> TorchFile::open(const std::filesystem::path& path) {
  auto out = std::make_shared<TorchFile>();
  out->file_ = MappedFile::open(path);
  const std::span<const std::byte> bytes = out->file_->bytes();
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min<size_t>(bytes.size(), 16));
  if (!start.starts_with(kZipStart))
    throw Error({.what = start.starts_with(kLegacyStart) ? "PyTorch files of the form before 1.6 are not read"
                                                         : "the file is no PyTorch checkpoint",
                 .where = path.string(),
                 .expected = "a zip archive, as torch.save writes since 1.6",
                 .got = start.starts_with(kLegacyStart) ? "a legacy pickle" : "other bytes at the start",
                 .remedy = "save the model as safetensors: model.save_pretrained(…, safe_serialization=True)"});
  const ZipArchive zip(bytes, path.string());
  const std::string root = root_of(zip, path.string());
  check_byte_order(zip, root, path.string());

  Reader reader(zip, root, path.string(), bytes.size());
  using View = std::tuple<std::string_view, DType, int64_t, std::vector<int64_t>, std::vector<int64_t>>;
  std::map<View, std::string> seen;
  for (const TorchView& view : read_torch_pickle(*zip.find(root + std::string(kPickle)), path.string())) {
    std::string name(view.name);
    const auto [at, added] = seen.emplace(View{view.storage, view.dtype, view.offset, view.shape, view.strides}, name);
    if (added)
      out->entries_.push_back({name, view.dtype, view.shape, reader.read(view, out->copies_)});
    else
      out->ties_.emplace(std::move(name), at->second);
  }
  return out;
}

}  // namespace pare
