#include "pare/container/shard_index.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "pare/base/error.h"
#include "pare/base/mapped_file.h"

namespace pare {
namespace {

constexpr size_t kMaxBytes = size_t{256} << 20;
constexpr int kMaxDepth = 16;

// A shard is a file beside the index: anything that could lead elsewhere is refused.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name.size() < 256 && name[0] != '.' && name.find_first_of("/\\") == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// Events of the JSON parser; a tree of ordered objects would need quadratic time for a hundred thousand names.
class IndexEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  IndexEvents(const std::string& file, ShardIndex& index) : file_(file), index_(index) {}

  bool null() override { return other(); }
  bool boolean(bool) override { return other(); }
  bool number_integer(number_integer_t) override { return other(); }
  bool number_unsigned(number_unsigned_t) override { return other(); }
  bool number_float(number_float_t, const string_t&) override { return other(); }
  bool binary(binary_t&) override { return other(); }
  bool string(string_t& value) override {
    if (depth_ != 2 || !in_map_) return other();
    if (!is_plain_name(value))
      fail("a shard's name is no plain file name", "a file beside the index", fmt::format("\"{}\"", value));
    if (!index_.weight_map.emplace(tensor_, value).second)
      fail("the index names a tensor twice", "each tensor once", tensor_);
    return true;
  }
  bool start_object(size_t) override {
    if (depth_ >= 2) other();
    return enter();
  }
  bool start_array(size_t) override {
    other();
    return enter();
  }
  bool key(string_t& key) override {
    if (depth_ == 1) {
      in_map_ = key == "weight_map";
      if (in_map_ && found_) fail("the index has two weight_maps", "one", "two");
      found_ = found_ || in_map_;
    }
    tensor_ = key;
    return true;
  }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    throw Error({.what = "the shard index is not valid JSON",
                 .where = fmt::format("{} at byte {}", file_, position),
                 .got = e.what(),
                 .remedy = "fetch it again"});
  }
  void finish() const {
    if (index_.weight_map.empty()) fail("the shard index has no weight_map", "a weight_map with tensors", "none");
  }

 private:
  bool other() const {
    if (depth_ == 0 || (in_map_ && depth_ >= 1))
      fail("the shard index holds something else than names", "\"weight_map\": {tensor: file, …}", "another value");
    return true;
  }
  bool enter() {
    if (++depth_ > kMaxDepth)
      fail("the shard index is nested too deeply", fmt::format("at most {} levels", kMaxDepth), "more");
    return true;
  }
  bool leave() {
    --depth_;
    return true;
  }
  [[noreturn]] void fail(std::string what, std::string expected, std::string got) const {
    throw Error({.what = std::move(what),
                 .where = file_,
                 .expected = std::move(expected),
                 .got = std::move(got),
                 .remedy = "the checkpoint is damaged; fetch it again"});
  }

  const std::string& file_;
  ShardIndex& index_;
  int depth_ = 0;
  bool in_map_ = false, found_ = false;
  std::string tensor_;
};

}  // namespace

std::set<std::string> ShardIndex::files() const {
  std::set<std::string> out;
  for (const auto& [tensor, file] : weight_map) out.insert(file);
  return out;
}

ShardIndex read_shard_index(const std::filesystem::path& path) {
  ShardIndex index;
  const std::string file = path.string(), text = read_text_file(path, kMaxBytes);
  IndexEvents events(file, index);
  nlohmann::json::sax_parse(text, &events);
  events.finish();
  return index;
}

std::string shard_index_json(const ShardIndex& index, uint64_t total_size) {
  const nlohmann::json json = {{"metadata", {{"total_size", total_size}}}, {"weight_map", index.weight_map}};
  return json.dump(2) + "\n";
}

}  // namespace pare
