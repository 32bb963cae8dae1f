#include "pare/container/torch_pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "pare/base/byte_reader.h"
#include "pare/base/utf8.h"

namespace pare {
namespace {

// Bounds that real checkpoints stay far below; together they keep the interpreter under 64 MB.
constexpr size_t kMaxObjects = 1'500'000, kMaxMemo = 1'000'000, kMaxStack = 1'000'000, kMaxItems = 3'000'000;
constexpr size_t kMaxFilled = 100'000, kMaxTensors = 100'000;  // containers with items; tensors and storages
constexpr size_t kMaxRank = 16, kMaxText = 65536;

// ---- globals

enum class GlobalKind : uint8_t {
  ordered_dict,
  rebuild_tensor,     // (storage, offset, size, stride)
  rebuild_tensor_v2,  // … requires_grad, hooks[, metadata]
  rebuild_tensor_v3,  // … requires_grad, hooks, dtype[, metadata]
  rebuild_parameter,  // (tensor, requires_grad, hooks)
  storage,            // of one dtype
  bytes,              // a storage without a type: its count is in bytes
  size,               // torch.Size(tuple)
  dtype,
};
struct Global {
  std::string_view module, name;
  GlobalKind kind;
  DType dtype = DType::u8;
};
constexpr Global kGlobals[] = {
    {"collections", "OrderedDict", GlobalKind::ordered_dict},
    {"torch._utils", "_rebuild_tensor", GlobalKind::rebuild_tensor},
    {"torch._utils", "_rebuild_tensor_v2", GlobalKind::rebuild_tensor_v2},
    {"torch._utils", "_rebuild_tensor_v3", GlobalKind::rebuild_tensor_v3},
    {"torch._utils", "_rebuild_parameter", GlobalKind::rebuild_parameter},
    {"torch", "Size", GlobalKind::size},
    {"torch", "FloatStorage", GlobalKind::storage, DType::f32},
    {"torch", "HalfStorage", GlobalKind::storage, DType::f16},
    {"torch", "BFloat16Storage", GlobalKind::storage, DType::bf16},
    {"torch", "DoubleStorage", GlobalKind::storage, DType::f64},
    {"torch", "LongStorage", GlobalKind::storage, DType::i64},
    {"torch", "IntStorage", GlobalKind::storage, DType::i32},
    {"torch", "ShortStorage", GlobalKind::storage, DType::i16},
    {"torch", "CharStorage", GlobalKind::storage, DType::i8},
    {"torch", "ByteStorage", GlobalKind::storage, DType::u8},
    {"torch", "BoolStorage", GlobalKind::storage, DType::boolean},
    {"torch", "ComplexFloatStorage", GlobalKind::storage, DType::c64},
    {"torch.storage", "UntypedStorage", GlobalKind::bytes},
    {"torch", "UntypedStorage", GlobalKind::bytes},
    {"torch", "float32", GlobalKind::dtype, DType::f32},
    {"torch", "float16", GlobalKind::dtype, DType::f16},
    {"torch", "bfloat16", GlobalKind::dtype, DType::bf16},
    {"torch", "float64", GlobalKind::dtype, DType::f64},
    {"torch", "int64", GlobalKind::dtype, DType::i64},
    {"torch", "int32", GlobalKind::dtype, DType::i32},
    {"torch", "int16", GlobalKind::dtype, DType::i16},
    {"torch", "int8", GlobalKind::dtype, DType::i8},
    {"torch", "uint8", GlobalKind::dtype, DType::u8},
    {"torch", "uint16", GlobalKind::dtype, DType::u16},
    {"torch", "uint32", GlobalKind::dtype, DType::u32},
    {"torch", "uint64", GlobalKind::dtype, DType::u64},
    {"torch", "bool", GlobalKind::dtype, DType::boolean},
    {"torch", "float8_e4m3fn", GlobalKind::dtype, DType::f8_e4m3},
    {"torch", "float8_e5m2", GlobalKind::dtype, DType::f8_e5m2},
    {"torch", "float8_e4m3fnuz", GlobalKind::dtype, DType::f8_e4m3fnuz},
    {"torch", "float8_e5m2fnuz", GlobalKind::dtype, DType::f8_e5m2fnuz},
    {"torch", "float8_e8m0fnu", GlobalKind::dtype, DType::f8_e8m0},
};

// ---- values

using Id = uint32_t;  // of an Object

enum class Kind : uint8_t { none, boolean, integer, real, text, tuple, list, dict, global, storage, tensor };
constexpr std::string_view kKindNames[] = {"None",   "a bool", "an integer", "a float",   "a text",  "a tuple",
                                           "a list", "a dict", "a global",   "a storage", "a tensor"};

// Numbers hold their value; text, tuples and storages a range of what they view; the rest an index.
struct Object {
  Kind kind = Kind::none;
  uint32_t count = 0;
  int64_t value = 0;
};
struct Storage {
  std::string_view key;
  DType dtype = DType::u8;
  bool typed = true;
  uint64_t count = 0;
};

// ---- the interpreter

class Unpickler {
 public:
  Unpickler(std::span<const std::byte> pickle, const std::string& where)
      : pickle_(pickle), where_(where), in_(pickle, where) {}

  std::vector<TorchView> run() {
    while (step()) {
    }
    if (stack_.size() != 1 || !marks_.empty()) fail("the pickle does not end with one value", "one", "several");
    return tensors_of(state_dict(stack_.back()));
  }

 private:
  // One opcode; false after STOP.
  bool step() {
    const auto code = in_.read<uint8_t>("the pickle");
    switch (code) {
      case 0x80:
        return protocol();
      case 0x95:
        return static_cast<void>(in_.read<uint64_t>("a frame")), true;
      case 0x2e:
        return false;
      case 0x71:
        return remember(in_.read<uint8_t>("a memo index"));
      case 0x72:
        return remember(in_.read<uint32_t>("a memo index"));
      case 0x94:
        return remember(memo_.size());
      case 0x68:
        return recall(in_.read<uint8_t>("a memo index"));
      case 0x6a:
        return recall(in_.read<uint32_t>("a memo index"));
      case 0x4e:
        return push({Kind::none});
      case 0x88:
        return push({Kind::boolean, 0, 1});
      case 0x89:
        return push({Kind::boolean, 0, 0});
      case 0x4a:
        return push({Kind::integer, 0, in_.read<int32_t>("an integer")});
      case 0x4b:
        return push({Kind::integer, 0, in_.read<uint8_t>("an integer")});
      case 0x4d:
        return push({Kind::integer, 0, in_.read<uint16_t>("an integer")});
      case 0x8a:
        return push_long(in_.read<uint8_t>("an integer"));
      case 0x47:
        return static_cast<void>(in_.read<double>("a float")), push({Kind::real});
      case 0x58:
        return push_text(in_.read<uint32_t>("a text"));
      case 0x8c:
        return push_text(in_.read<uint8_t>("a text"));
      case 0x54:
        return push_text(in_.read<uint32_t>("a text"));
      case 0x55:
        return push_text(in_.read<uint8_t>("a text"));
      case 0x28:
        return mark();
      case 0x29:
        return push_tuple(0);
      case 0x85:
        return push_tuple(1);
      case 0x86:
        return push_tuple(2);
      case 0x87:
        return push_tuple(3);
      case 0x74:
        return push_tuple(since_mark());
      case 0x5d:
        return push_growing(Kind::list);
      case 0x8f:
        return push_growing(Kind::list);  // a set: only its items matter
      case 0x7d:
        return push_growing(Kind::dict);
      case 0x61:
        return extend(Kind::list, 1);
      case 0x65:
      case 0x90:
        return extend(Kind::list, since_mark());
      case 0x73:
        return extend(Kind::dict, 2);
      case 0x75:
        return extend(Kind::dict, since_mark());
      case 0x63:
        return global_by_lines();
      case 0x93:
        return global_by_stack();
      case 0x52:
      case 0x81:
        return reduce();
      case 0x62:
        return build();
      case 0x51:
        return persistent_id();
      default:
        fail("the pickle holds an opcode that no checkpoint needs", "the opcodes of tensors in a dict",
             fmt::format("0x{:02x}", code));
    }
  }

  bool protocol() {
    const auto version = in_.read<uint8_t>("the protocol");
    if (version < 2 || version > 5) fail("the pickle's protocol is unknown", "2 to 5", std::to_string(version));
    return true;
  }

  // ---- stack and memo
  bool push(Object object) {
    if (objects_.size() >= kMaxObjects || stack_.size() >= kMaxStack) fail_large("values");
    stack_.push_back(static_cast<Id>(objects_.size()));
    objects_.push_back(object);
    return true;
  }
  Id pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail("the pickle takes more values than it has", "", "");
    const Id id = stack_.back();
    stack_.pop_back();
    return id;
  }
  bool mark() {
    if (marks_.size() >= kMaxStack) fail_large("marks");
    marks_.push_back(stack_.size());
    return true;
  }
  size_t since_mark() {
    if (marks_.empty()) fail("the pickle closes a group that it did not open", "", "");
    const size_t count = stack_.size() - marks_.back();
    marks_.pop_back();
    return count;
  }
  bool remember(size_t index) {
    if (index >= kMaxMemo) fail_large("memo entries");
    if (index >= memo_.size()) memo_.resize(index + 1, kAbsent);
    const Id id = pop();
    stack_.push_back(id);
    memo_[index] = id;
    return true;
  }
  bool recall(size_t index) {
    if (index >= memo_.size() || memo_[index] == kAbsent)
      fail("the pickle recalls what it did not remember", "a memo entry", std::to_string(index));
    if (stack_.size() >= kMaxStack) fail_large("values");
    stack_.push_back(memo_[index]);
    return true;
  }

  // ---- scalars and texts
  bool push_long(uint8_t size) {
    if (size > 8) fail("an integer is too large", "at most 8 bytes", fmt::format("{} bytes", size));
    const auto bytes = in_.take(size, "an integer");
    int64_t value = size > 0 && (std::to_integer<uint8_t>(bytes.back()) & 0x80) != 0 ? -1 : 0;
    std::memcpy(&value, bytes.data(), size);
    return push({Kind::integer, 0, value});
  }
  bool push_text(uint32_t size) {
    if (size > kMaxText) fail("a text is too long", fmt::format("at most {} bytes", kMaxText), fmt::format("{}", size));
    const uint64_t at = in_.offset();
    const auto bytes = in_.take(size, "a text");
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (!is_utf8(text)) fail("a text is not UTF-8", "", "");
    return push({Kind::text, size, static_cast<int64_t>(at)});
  }
  std::string_view text_of(const Object& o) const {
    return {reinterpret_cast<const char*>(pickle_.data()) + o.value, o.count};
  }

  // ---- containers: tuples are ranges of items_, lists and dicts grow in vectors of their own
  bool push_tuple(size_t count) {
    const size_t base = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() < base + count) fail("the pickle takes more values than it has", "", "");
    if (items_.size() + count > kMaxItems) fail_large("items");
    const Object tuple{Kind::tuple, static_cast<uint32_t>(count), static_cast<int64_t>(items_.size())};
    items_.insert(items_.end(), stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return push(tuple);
  }
  std::span<const Id> items_of(const Object& tuple) const {
    return std::span(items_).subspan(static_cast<size_t>(tuple.value), tuple.count);
  }
  bool push_growing(Kind kind) { return push({kind, 0, kAbsent}); }
  std::span<const Id> grown(const Object& o) const {
    if (o.value == kAbsent) return {};
    return growing_[static_cast<size_t>(o.value)];
  }
  bool extend(Kind kind, size_t count) {
    const size_t base = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() < base + count + 1 || (kind == Kind::dict && count % 2 != 0))
      fail("the pickle fills a container with too few values", "", "");
    Object& o = objects_[stack_[stack_.size() - count - 1]];
    if (o.kind != kind) fail_kind("fills", kind, o);
    if (count > 0) {
      if ((grown_items_ += count) > kMaxItems) fail_large("items");
      if (o.value == kAbsent) {
        if (growing_.size() >= kMaxFilled) fail_large("lists and dicts");
        o.value = static_cast<int64_t>(growing_.size());
        growing_.emplace_back();
      }
      auto& into = growing_[static_cast<size_t>(o.value)];
      into.insert(into.end(), stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
      stack_.resize(stack_.size() - count);
    }
    return true;
  }

  // ---- globals and what they make
  bool global_by_lines() {
    const std::string_view module = line(), name = line();
    return push_global(module, name);
  }
  std::string_view line() {
    const auto rest = pickle_.subspan(in_.offset());
    const auto end = std::find(
        rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(rest.size(), 256)), std::byte{'\n'});
    const auto length = static_cast<size_t>(end - rest.begin());
    if (length == rest.size() || length == 256) fail("a global's name does not end", "", "");
    const auto bytes = in_.take(length + 1, "a global");
    return {reinterpret_cast<const char*>(bytes.data()), length};
  }
  bool global_by_stack() {
    const Object name = objects_[pop()], module = objects_[pop()];
    if (name.kind != Kind::text || module.kind != Kind::text) fail("a global's name is no text", "", "");
    return push_global(text_of(module), text_of(name));
  }
  bool push_global(std::string_view module, std::string_view name) {
    const auto at = std::find_if(std::begin(kGlobals), std::end(kGlobals),
                                 [&](const Global& g) { return g.module == module && g.name == name; });
    if (at == std::end(kGlobals))
      throw Error({.what = fmt::format("the pickle asks for {}.{}, which no checkpoint of weights needs",
                                       printable(module), printable(name)),
                   .where = here(),
                   .expected = "tensors, their storages and dicts",
                   .got = "a forbidden global",
                   .remedy = "do not load this file with other tools either unless you trust its author"});
    return push({Kind::global, 0, at - std::begin(kGlobals)});
  }
  static std::string printable(std::string_view text) {
    std::string out(text.substr(0, 128));
    for (char& c : out)
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
    return out;
  }

  bool reduce() {
    const Object arguments = objects_[pop()], function = objects_[pop()];
    if (function.kind != Kind::global) fail_kind("calls", Kind::global, function);
    if (arguments.kind != Kind::tuple) fail_kind("calls with", Kind::tuple, arguments);
    const Global& global = kGlobals[function.value];
    const std::span<const Id> given = items_of(arguments);
    switch (global.kind) {
      case GlobalKind::ordered_dict:
        return ordered_dict(given);
      case GlobalKind::rebuild_tensor:
        return tensor(need(given, 4, 4), std::nullopt);
      case GlobalKind::rebuild_tensor_v2:
        return tensor(need(given, 5, 7), std::nullopt);
      case GlobalKind::rebuild_tensor_v3:
        return tensor(need(given, 7, 8), dtype_of(given[6]));
      case GlobalKind::rebuild_parameter:
        stack_.push_back(expect(need(given, 1, 4)[0], Kind::tensor));
        return true;
      case GlobalKind::size:
        stack_.push_back(expect(need(given, 1, 1)[0], Kind::tuple));
        return true;
      default:
        fail("the pickle calls what cannot be called", "OrderedDict or a tensor",
             fmt::format("{}.{}", global.module, global.name));
    }
  }
  std::span<const Id> need(std::span<const Id> given, size_t least, size_t most) const {
    if (given.size() < least || given.size() > most)
      fail("a call has the wrong number of arguments", fmt::format("{} to {}", least, most),
           std::to_string(given.size()));
    return given;
  }
  Id expect(Id id, Kind kind) const {
    if (objects_[id].kind != kind) fail_kind("needs", kind, objects_[id]);
    return id;
  }
  DType dtype_of(Id id) const {
    const Object& o = objects_[expect(id, Kind::global)];
    if (kGlobals[o.value].kind != GlobalKind::dtype) fail("a tensor's dtype is none", "torch.float16, …", "");
    return kGlobals[o.value].dtype;
  }

  // OrderedDict() or OrderedDict([(key, value), …])
  bool ordered_dict(std::span<const Id> given) {
    need(given, 0, 1);
    push_growing(Kind::dict);
    if (given.empty()) return true;
    for (const Id pair : grown(objects_[expect(given[0], Kind::list)])) {
      const auto key_value = need(items_of(objects_[expect(pair, Kind::tuple)]), 2, 2);
      stack_.insert(stack_.end(), key_value.begin(), key_value.end());
      extend(Kind::dict, 2);
    }
    return true;
  }
  // State that an object is given after it was made: of a dict its _metadata, which nothing here needs.
  bool build() {
    pop();
    const Id id = pop();
    if (objects_[id].kind != Kind::dict && objects_[id].kind != Kind::tensor)
      fail_kind("builds", Kind::dict, objects_[id]);
    stack_.push_back(id);
    return true;
  }

  // ('storage', class, key, location, count)
  bool persistent_id() {
    const auto given = need(items_of(objects_[expect(pop(), Kind::tuple)]), 5, 5);
    if (text_of(objects_[expect(given[0], Kind::text)]) != "storage")
      fail("a persistent id is no storage", "'storage'", "something else");
    const Global& type = kGlobals[objects_[expect(given[1], Kind::global)].value];
    if (type.kind != GlobalKind::storage && type.kind != GlobalKind::bytes)
      fail("a storage's class is none", "torch.FloatStorage, …", fmt::format("{}.{}", type.module, type.name));
    const int64_t count = objects_[expect(given[4], Kind::integer)].value;
    if (count < 0) fail("a storage has a negative size", "0 or more", std::to_string(count));
    if (storages_.size() >= kMaxTensors) fail_large("storages");
    storages_.push_back({text_of(objects_[expect(given[2], Kind::text)]), type.dtype, type.kind == GlobalKind::storage,
                         static_cast<uint64_t>(count)});
    return push({Kind::storage, 0, static_cast<int64_t>(storages_.size()) - 1});
  }

  bool tensor(std::span<const Id> given, std::optional<DType> dtype) {
    const Storage& storage = storages_[static_cast<size_t>(objects_[expect(given[0], Kind::storage)].value)];
    TorchView view;
    view.storage = storage.key;
    view.dtype = dtype.value_or(storage.dtype);
    if (__builtin_mul_overflow(storage.count, static_cast<uint64_t>(info(storage.dtype).bits / 8), &view.storage_bytes))
      fail("a storage's size overflows", "less than 2^64 bytes", std::to_string(storage.count));
    view.offset = objects_[expect(given[1], Kind::integer)].value;
    view.shape = numbers(given[2]);
    view.strides = numbers(given[3]);
    if (views_.size() >= kMaxTensors) fail_large("tensors");
    views_.push_back(std::move(view));
    return push({Kind::tensor, 0, static_cast<int64_t>(views_.size()) - 1});
  }
  std::vector<int64_t> numbers(Id id) const {
    const auto items = items_of(objects_[expect(id, Kind::tuple)]);
    if (items.size() > kMaxRank)
      fail("a tensor has too many dimensions", fmt::format("at most {}", kMaxRank), std::to_string(items.size()));
    std::vector<int64_t> out;
    for (const Id item : items) out.push_back(objects_[expect(item, Kind::integer)].value);
    return out;
  }

  // ---- the result
  // The dict of tensors: the value itself, or what it holds under the names that training programs use.
  Id state_dict(Id top) const {
    if (objects_[top].kind != Kind::dict) fail("the file holds no state dict", "a dict of tensors", kind_of(top));
    if (holds_tensors(top)) return top;
    const auto items = grown(objects_[top]);
    for (const std::string_view name : {"state_dict", "model", "module"})
      for (size_t i = 0; i + 1 < items.size(); i += 2)
        if (objects_[items[i]].kind == Kind::text && text_of(objects_[items[i]]) == name &&
            objects_[items[i + 1]].kind == Kind::dict && holds_tensors(items[i + 1]))
          return items[i + 1];
    fail("the dict holds no tensors", "names and tensors, perhaps under \"state_dict\" or \"model\"", "none");
  }
  bool holds_tensors(Id dict) const {
    const auto items = grown(objects_[dict]);
    for (size_t i = 1; i < items.size(); i += 2)
      if (objects_[items[i]].kind == Kind::tensor) return true;
    return false;
  }
  std::vector<TorchView> tensors_of(Id dict) const {
    std::vector<TorchView> out;
    std::unordered_set<std::string_view> seen;
    const auto items = grown(objects_[dict]);
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      const Object &key = objects_[items[i]], &value = objects_[items[i + 1]];
      if (value.kind != Kind::tensor) continue;  // an epoch, a learning rate, …
      if (key.kind != Kind::text) fail("a tensor's name is no text", "a text", kind_of(items[i]));
      if (!seen.insert(text_of(key)).second)
        fail("the state dict names a tensor twice", "each name once", printable(text_of(key)));
      out.push_back(views_[static_cast<size_t>(value.value)]);
      out.back().name = text_of(key);
    }
    return out;
  }

  // ---- errors
  std::string here() const { return fmt::format("{}, byte {} of data.pkl", where_, in_.offset()); }
  std::string kind_of(Id id) const { return std::string(kKindNames[static_cast<size_t>(objects_[id].kind)]); }
  [[noreturn]] void fail(std::string what, std::string expected, std::string got) const {
    throw Error({.what = std::move(what),
                 .where = here(),
                 .expected = std::move(expected),
                 .got = std::move(got),
                 .remedy = "the file is damaged or holds more than weights; save the model as safetensors"});
  }
  [[noreturn]] void fail_kind(std::string_view verb, Kind wanted, const Object& found) const {
    fail(fmt::format("the pickle {} a value of the wrong kind", verb),
         std::string(kKindNames[static_cast<size_t>(wanted)]),
         std::string(kKindNames[static_cast<size_t>(found.kind)]));
  }
  [[noreturn]] void fail_large(std::string_view of) const {
    fail(fmt::format("the pickle has too many {}", of), "a checkpoint of weights", "more than any needs");
  }

  static constexpr uint32_t kAbsent = UINT32_MAX;
  std::span<const std::byte> pickle_;
  const std::string& where_;
  ByteReader in_;
  std::vector<Object> objects_;
  std::vector<Id> stack_, items_, memo_;
  std::vector<size_t> marks_;
  std::vector<std::vector<Id>> growing_;
  size_t grown_items_ = 0;
  std::vector<Storage> storages_;
  std::vector<TorchView> views_;
};

}  // namespace

std::vector<TorchView> read_torch_pickle(std::span<const std::byte> pickle, const std::string& where) {
  return Unpickler(pickle, where).run();
}

}  // namespace pare
