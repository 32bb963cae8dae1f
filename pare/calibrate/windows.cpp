#include "pare/calibrate/windows.h"

#include <algorithm>

#include "pare/base/error.h"

namespace pare {

TokenWindows cut_windows(const Corpus& corpus, const Tokenizer& tokenizer, int64_t samples, int64_t length,
                         uint64_t seed) {
  std::vector<int32_t> stream;
  for (const std::string& document : corpus.documents) {
    const auto ids = tokenizer.encode(document, {.add_special = false, .parse_special = false});
    stream.insert(stream.end(), ids.begin(), ids.end());
  }
  const bool with_bos = tokenizer.adds_bos() && tokenizer.bos().has_value();
  const int64_t fresh = with_bos ? length - 1 : length;  // tokens of text per window
  if (stream.size() < 2 || fresh < 1)
    throw Error({.what = "too little calibration text",
                 .where = corpus.name,
                 .expected = "at least two tokens",
                 .got = std::to_string(stream.size()),
                 .remedy = "give more text with --calib-data"});

  const auto total = static_cast<int64_t>(stream.size());
  const int64_t slack = total % fresh;
  const int64_t start = total >= fresh && slack > 0 ? static_cast<int64_t>(seed % static_cast<uint64_t>(slack + 1)) : 0;
  TokenWindows out;
  out.available = std::max<int64_t>(1, total / fresh);
  out.length = std::min(length, total + (with_bos ? 1 : 0));
  const int64_t count = std::min(samples, out.available);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t first = start + i * out.available / count * fresh;
    const int64_t last = std::min(first + fresh, total);
    std::vector<int32_t>& window = out.windows.emplace_back();
    if (with_bos) window.push_back(*tokenizer.bos());
    window.insert(window.end(), stream.begin() + first, stream.begin() + last);
  }
  return out;
}

}  // namespace pare
