#include "pare/tokenizer/pipeline.h"

#include <fmt/format.h>

#include <algorithm>

#include "pare/base/error.h"
#include "pare/base/utf8.h"

namespace pare::tok {
namespace {

constexpr size_t kMaxText = size_t{1} << 30;

void check_text(std::string_view text) {
  if (text.size() > kMaxText)
    throw Error({.what = "the text is too long to tokenize at once",
                 .expected = fmt::format("at most {} bytes", kMaxText),
                 .got = fmt::format("{} bytes", text.size()),
                 .remedy = "cut it into parts"});
  const size_t bad = first_invalid_utf8(text);
  if (bad != text.size())
    throw Error({.what = "the text is not UTF-8",
                 .where = fmt::format("byte {} of the text", bad),
                 .got = fmt::format("byte 0x{:02x}", static_cast<unsigned char>(text[bad])),
                 .remedy = "convert it to UTF-8 first"});
}

std::vector<AddedToken> sought_in_raw(std::vector<AddedToken> tokens) {
  std::erase_if(tokens, [](const AddedToken& t) { return t.normalized; });
  return tokens;
}

// Their contents pass through the normalizer too: that is how they will look in the text.
std::vector<AddedToken> sought_in_normalized(std::vector<AddedToken> tokens, const Normalizer& normalizer) {
  std::erase_if(tokens, [](const AddedToken& t) { return !t.normalized; });
  for (AddedToken& t : tokens) t.content = normalizer.apply(t.content);
  return tokens;
}

}  // namespace

struct Pipeline::Workspace {
  Pieces pieces;
  Bpe::Scratch bpe;
  std::vector<TokenFinder::Segment> raw, normalized;
};

class Pipeline::Loan {
 public:
  explicit Loan(const Pipeline& owner) : owner_(owner) {
    const std::scoped_lock lock(owner_.mutex_);
    if (!owner_.idle_.empty()) {
      work_ = std::move(owner_.idle_.back());
      owner_.idle_.pop_back();
    }
    if (!work_) work_ = std::make_unique<Workspace>();
  }
  ~Loan() {
    const std::scoped_lock lock(owner_.mutex_);
    owner_.idle_.push_back(std::move(work_));
  }
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;
  Workspace& operator*() const { return *work_; }

 private:
  const Pipeline& owner_;
  std::unique_ptr<Workspace> work_;
};

Pipeline::Pipeline(PipelineParts parts)
    : parts_(std::move(parts)),
      raw_(sought_in_raw(parts_.added), parts_.where),
      normalized_(sought_in_normalized(parts_.added, parts_.normalizer), parts_.where) {
  skipped_.resize(static_cast<size_t>(parts_.vocabulary->size()));
  for (const AddedToken& t : parts_.added) {
    std::string written = t.normalized ? parts_.normalizer.apply(t.content) : t.content;
    if (written != t.content)
      written_.emplace(t.id, std::move(written));
    else if (t.special)
      skipped_[static_cast<size_t>(t.id)] = true;
  }
}

Pipeline::~Pipeline() = default;

std::vector<int32_t> Pipeline::encode(std::string_view text, const EncodeOptions& options) const {
  check_text(text);
  const Loan loan(*this);
  Workspace& work = *loan;
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  if (options.add_special) ids = parts_.prefix;
  encode_text(text, options, work, ids);
  if (options.add_special) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
  return ids;
}

void Pipeline::encode_text(std::string_view text, const EncodeOptions& options, Workspace& work,
                           std::vector<int32_t>& ids) const {
  raw_.split(text, options.parse_special, work.raw);
  for (const TokenFinder::Segment& segment : work.raw) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
      continue;
    }
    const bool begins_input = segment.text.data() == text.data();
    std::string rewritten;
    std::string_view normal = segment.text;
    if (!parts_.normalizer.empty()) normal = rewritten = parts_.normalizer.apply(segment.text);
    normalized_.split(normal, options.parse_special, work.normalized);
    for (const TokenFinder::Segment& part : work.normalized) {
      if (part.id >= 0)
        ids.push_back(part.id);
      else
        encode_normalized(part.text, begins_input && part.text.data() == normal.data(), work, ids);
    }
  }
}

void Pipeline::encode_normalized(std::string_view text, bool begins_input, Workspace& work,
                                 std::vector<int32_t>& ids) const {
  parts_.pretokenizer.split(text, begins_input, work.pieces);
  for (const std::string_view piece : work.pieces.list)
    if (!piece.empty()) parts_.bpe.encode(piece, work.bpe, ids);
}

std::string Pipeline::decode(std::span<const int32_t> ids, const DecodeOptions& options) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    if (!parts_.vocabulary->has(id)) continue;
    if (options.skip_special && skipped_[static_cast<size_t>(id)]) continue;
    const auto written = written_.find(id);
    tokens.push_back(written != written_.end() ? written->second : parts_.vocabulary->piece(id));
  }
  return parts_.decoder.decode(std::move(tokens));
}

TokenInfo Pipeline::token(int32_t id) const {
  if (!parts_.vocabulary->has(id)) return {"", Kind::unused};
  return {parts_.vocabulary->piece(id), parts_.vocabulary->kind(id)};
}

bool Pipeline::adds_bos() const {
  return parts_.special.bos &&
         std::find(parts_.prefix.begin(), parts_.prefix.end(), *parts_.special.bos) != parts_.prefix.end();
}

}  // namespace pare::tok
