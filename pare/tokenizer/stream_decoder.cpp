#include <algorithm>

#include "pare/tokenizer/tokenizer.h"
#include "pare/tokenizer/unicode.h"

namespace pare {
namespace {

// Bytes of whole characters in which both begin alike: all of `before`, unless it ended in a broken character.
size_t shared_length(const std::string& before, const std::string& now) {
  const size_t limit = std::min(before.size(), now.size());
  const auto differ = std::mismatch(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(limit), now.begin());
  auto length = static_cast<size_t>(differ.first - before.begin());
  while (length > 0 && length < now.size() && (static_cast<unsigned char>(now[length]) & 0xc0) == 0x80) --length;
  return length;
}

}  // namespace

// Decoding a tail of the sequence costs little, but the first token of a text may be written differently (a leading
// space is dropped). So the tail always begins with tokens already given out, `context`, and what is new is the
// difference. Text may still change while it ends in a broken character or in a byte token: until then it is held back.
//     ids:   … given out and forgotten | context | pending |
struct StreamDecoder::State {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<int32_t> tail;  // context, then pending
  size_t context = 0;
  std::string given;  // text of the tail that was given out already

  std::string take(bool all) {
    if (tail.size() == context) return "";
    const std::string text = tokenizer->decode(tail);
    const bool unsettled =
        text.ends_with(tok::kReplacement) || tokenizer->token(tail.back()).kind == TokenInfo::Kind::byte;
    if (!all && unsettled) return "";
    const std::string fresh = text.substr(shared_length(given, text));
    tail.erase(tail.begin(), tail.begin() + static_cast<std::ptrdiff_t>(context));
    context = tail.size();
    given = tokenizer->decode(tail);
    return fresh;
  }
};

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, std::span<const int32_t> prompt)
    : state_(std::make_unique<State>()) {
  state_->tokenizer = std::move(tokenizer);
  state_->tail.assign(prompt.begin(), prompt.end());
  state_->context = prompt.size();
  state_->given = state_->tokenizer->decode(prompt);
}

StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::push(int32_t id) {
  state_->tail.push_back(id);
  return state_->take(false);
}

std::string StreamDecoder::finish() { return state_->take(true); }

}  // namespace pare
