#include "tests/tokenizer/small_tokenizers.h"

#include "pare/base/utf8.h"

namespace pare::test {

Json byte_model() {
  Json vocab = Json::object();
  uint32_t next = 0x100;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool itself = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    std::string letter;
    append_utf8(letter, itself ? b : next++);
    vocab[letter] = b;
  }
  return {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}};
}

}  // namespace pare::test
