#include "pare/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <array>

#include "pare/base/error.h"
#include "pare/base/utf8.h"

namespace pare::tok {
namespace {

constexpr size_t kMaxPattern = 16384;       // bytes
constexpr uint32_t kMaxSteps = 20'000'000;  // per match; a match of a sane pattern takes a handful
constexpr uint32_t kMaxDepth = 100'000;
constexpr uint32_t kMaxHeap = 65536;  // KiB, interpreter
constexpr size_t kJitStack = size_t{4} << 20;

[[noreturn]] void refuse(std::string_view pattern, const std::string& why) {
  throw Error({.what = "a split pattern of the tokenizer is not supported",
               .where = fmt::format("/{:.200}/", pattern),
               .got = why,
               .remedy = "report the model: its pattern needs support of its own"});
}

// \s is White_Space in Oniguruma; PCRE2 adds U+180E. \p{Z} is all of it but the controls.
constexpr std::string_view kSpaceInClass = R"(\x{9}-\x{d}\x{85}\p{Z})";

// Rewrites what the two engines read differently.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    while (at_ < in_.size()) in_class_ ? step_in_class() : step();
    return std::move(out_);
  }

 private:
  char next() const { return at_ + 1 < in_.size() ? in_[at_ + 1] : '\0'; }
  void copy(size_t n) {
    out_ += in_.substr(at_, n);
    at_ += n;
  }
  void replace(size_t n, const std::string& by) {
    out_ += by;
    at_ += n;
  }
  void escape() {
    const char c = next();
    if (c == 'h' || c == 'H') refuse(in_, "\\h means a hexadecimal digit in one engine and a space in the other");
    if (c == 's')
      replace(2, in_class_ ? std::string(kSpaceInClass) : fmt::format("[{}]", kSpaceInClass));
    else if (c == 'S' && !in_class_)
      replace(2, fmt::format("[^{}]", kSpaceInClass));
    else
      copy(2);
  }
  void step() {
    if (in_[at_] == '\\') return escape();
    if (in_[at_] == '[') {
      in_class_ = true;
      copy(next() == '^' ? 2 : 1);
      if (at_ < in_.size() && in_[at_] == ']') copy(1);
      return;
    }
    copy(1);
  }
  void step_in_class() {
    const char c = in_[at_];
    if (c == '\\') return escape();
    if (c == '&' && next() == '&') refuse(in_, "an intersection of character classes (&&)");
    if (c == '[' && next() != ':') refuse(in_, "a character class inside another");
    if (c == '[') {  // [:name:]
      const size_t end = in_.find(":]", at_);
      return copy(end == std::string_view::npos ? 1 : end + 2 - at_);
    }
    if (c == ']') in_class_ = false;
    copy(1);
  }

  std::string_view in_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

template <auto free>
struct Freed {
  template <class T>
  void operator()(T* pointer) const {
    free(pointer);
  }
};
using MatchData = std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freed<pcre2_match_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Freed<pcre2_jit_stack_free>>;

}  // namespace

struct Regex::Code {
  std::unique_ptr<pcre2_code, Freed<pcre2_code_free>> compiled;
};

Regex::Regex(std::string_view pattern) : pattern_(pattern) {
  if (pattern.size() > kMaxPattern) refuse(pattern, fmt::format("{} bytes long", pattern.size()));
  if (!is_utf8(pattern)) refuse(pattern.substr(0, first_invalid_utf8(pattern)), "not UTF-8");
  const std::string translated = Translator(pattern).run();
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->compiled.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr));
  if (!code->compiled) refuse(pattern, message_of(error));
  pcre2_jit_compile(code->compiled.get(), PCRE2_JIT_COMPLETE);  // without JIT it is only slower
  code_ = std::move(code);
}

void Regex::for_each_match(std::string_view text, const std::function<void(size_t, size_t)>& found) const {
  if (text.empty()) return;
  const pcre2_code* code = code_->compiled.get();
  const MatchData data(pcre2_match_data_create(1, nullptr));
  const MatchContext context(pcre2_match_context_create(nullptr));
  const JitStack stack(pcre2_jit_stack_create(size_t{32} << 10, kJitStack, nullptr));
  if (!data || !context) throw std::bad_alloc();
  pcre2_set_match_limit(context.get(), kMaxSteps);
  pcre2_set_depth_limit(context.get(), kMaxDepth);
  pcre2_set_heap_limit(context.get(), kMaxHeap);
  if (stack) pcre2_jit_stack_assign(context.get(), nullptr, stack.get());

  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
  for (size_t from = 0; from < text.size();) {
    int result = pcre2_match(code, subject, text.size(), from, options, data.get(), context.get());
    if (result == PCRE2_ERROR_JIT_STACKLIMIT)
      result = pcre2_match(code, subject, text.size(), from, options | PCRE2_NO_JIT, data.get(), context.get());
    if (result == PCRE2_ERROR_NOMATCH) return;
    if (result < 0)
      throw Error({.what = "a split pattern of the tokenizer gives up on this text",
                   .where = fmt::format("/{:.200}/ at byte {}", pattern_, from),
                   .got = message_of(result),
                   .remedy = "the text is adversarial for this pattern; break up its long runs of one kind"});
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
    if (range[1] <= range[0] || range[0] < from)  // \K can place a match oddly: such patterns are no splitters
      throw Error({.what = "a split pattern of the tokenizer matches nothing at all", .where = pattern_});
    found(range[0], range[1]);
    from = range[1];
  }
}

std::string escape_regex(std::string_view literal) {
  std::string pattern;
  for (const char c : literal) {
    if (std::string_view(R"(\^$.[]|()?*+{}-&#)").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace pare::tok
