#include "pare/base/error.h"
#include "pare/tokenizer/tokenizer.h"
#include "pare/tokenizer/unicode.h"

namespace pare {

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
    const std::string fresh = text.size() > given.size() ? text.substr(given.size()) : "";
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
