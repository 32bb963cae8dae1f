#include "pare/tokenizer/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cassert>

#include "pare/base/error.h"
#include "pare/tokenizer/unicode.h"

namespace pare::tok {
namespace {

constexpr size_t kBasicPlane = 0x10000;

bool one_character(std::string_view piece) { return !piece.empty() && char_at(piece, 0).bytes == piece.size(); }

// What SentencePiece finds in running text; the other kinds are only ever put there.
bool spells_text(Kind kind) { return kind == Kind::normal || kind == Kind::user_defined; }

}  // namespace

PairTable::PairTable(size_t count) {
  const size_t slots = std::bit_ceil(std::max<size_t>(16, count * 2));
  entries_.resize(slots);
  mask_ = slots - 1;
  shift_ = 64 - std::countr_zero(slots);
}

void PairTable::set(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = key_of(left, right);
  size_t at = slot_of(key);
  while (entries_[at].key != kEmpty && entries_[at].key != key) at = (at + 1) & mask_;
  entries_[at] = {key, merge};
}

Bpe::Bpe(std::shared_ptr<const Vocabulary> vocabulary, const BpeOptions& options, size_t pairs)
    : vocabulary_(std::move(vocabulary)), options_(options), pairs_(pairs), joins_(256 * 256) {
  symbols_.assign(kBasicPlane, -1);
  for (int32_t id = 0; id < vocabulary_->size(); ++id)
    longest_piece_ = std::max(longest_piece_, vocabulary_->piece(id).size());
  for (unsigned b = 0; b < 256; ++b) byte_ids_[b] = vocabulary_->find(fmt::format("<0x{:02X}>", b)).value_or(-1);
}

Bpe Bpe::from_merges(std::shared_ptr<const Vocabulary> vocabulary, const Merges& merges, const BpeOptions& options,
                     const std::string& where) {
  const Vocabulary& v = *vocabulary;
  Bpe bpe(std::move(vocabulary), options, merges.size());
  for (int32_t id = 0; id < v.size(); ++id)
    if (v.has(id) && one_character(v.piece(id))) bpe.add_symbol(char_at(v.piece(id), 0).code, id);
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto& [left, right] = merges[i];
    const auto l = v.find(left), r = v.find(right), joined = v.find(left + right);
    if (left.empty() || right.empty() || !l || !r || !joined)
      throw Error({.what = "a merge names a piece that is not in the vocabulary",
                   .where = fmt::format("{}: merge {}", where, i),
                   .got = fmt::format("\"{}\" + \"{}\"", left, right),
                   .remedy = "the file is damaged, or vocabulary and merges belong to different models"});
    bpe.pairs_.set(*l, *r, {static_cast<uint32_t>(i), *joined});
    bpe.ranks_ = i + 1;
    bpe.note_border(left, right);
  }
  bpe.close_unknown_borders();
  return bpe;
}

Bpe Bpe::from_scores(std::shared_ptr<const Vocabulary> vocabulary, std::span<const float> scores,
                     const BpeOptions& options) {
  assert(static_cast<int64_t>(scores.size()) == vocabulary->size());
  const Vocabulary& v = *vocabulary;
  const auto score = [&](int32_t id) { return scores[static_cast<size_t>(id)]; };
  std::vector<int32_t> joinable;
  size_t pairs = 0;
  for (int32_t id = 0; id < v.size(); ++id) {
    if (!v.has(id) || !spells_text(v.kind(id)) || v.find(v.piece(id)) != id) continue;
    joinable.push_back(id);
    pairs += v.piece(id).size();
  }
  std::stable_sort(joinable.begin(), joinable.end(), [&](int32_t a, int32_t b) { return score(a) > score(b); });

  Bpe bpe(std::move(vocabulary), options, pairs);
  for (const int32_t id : joinable)
    if (one_character(v.piece(id))) bpe.add_symbol(char_at(v.piece(id), 0).code, id);
  uint32_t rank = 0;
  for (size_t i = 0; i < joinable.size(); ++i) {
    const std::string_view piece = v.piece(joinable[i]);
    if (i > 0 && score(joinable[i]) != score(joinable[i - 1])) rank = static_cast<uint32_t>(i);
    for (size_t cut = 0; !piece.empty() && (cut += char_at(piece, cut).bytes) < piece.size();) {
      const int32_t left = bpe.part_of_piece(piece.substr(0, cut)), right = bpe.part_of_piece(piece.substr(cut));
      if (left < 0 || right < 0) continue;
      bpe.pairs_.set(left, right, {rank, joinable[i]});
      bpe.ranks_ = size_t{rank} + 1;
      bpe.note_border(piece.substr(0, cut), piece.substr(cut));
    }
  }
  bpe.close_unknown_borders();
  return bpe;
}

void Bpe::add_symbol(uint32_t code, int32_t id) {
  if (code < kBasicPlane)
    symbols_[code] = id;
  else
    high_symbols_[code] = id;
}

int32_t Bpe::find_symbol(uint32_t code) const {
  if (code < kBasicPlane) return symbols_[code];
  const auto at = high_symbols_.find(code);
  return at == high_symbols_.end() ? -1 : at->second;
}

// The id of one side of a pair. A lone character is a symbol even when it is no token: SentencePiece joins two of them
// when together they are one.
int32_t Bpe::part_of_piece(std::string_view part) {
  if (!one_character(part)) {
    const auto id = vocabulary_->find(part);
    return id && spells_text(vocabulary_->kind(*id)) ? *id : -1;
  }
  const uint32_t code = char_at(part, 0).code;
  if (const int32_t id = find_symbol(code); id >= 0) return id;
  const auto id = static_cast<int32_t>(vocabulary_->size() + static_cast<int64_t>(extra_symbols_.size()));
  extra_symbols_.emplace_back(part);
  add_symbol(code, id);
  return id;
}

void Bpe::note_border(std::string_view left, std::string_view right) {
  const unsigned a = border_class(char_before(left, left.size()).code), b = border_class(char_at(right, 0).code);
  joins_[a * 256 + b] = true;
}

// No cut beside a character that may be unknown: neighbouring unknowns may have to fuse.
void Bpe::close_unknown_borders() {
  for (unsigned k = 0; k <= kOtherBorder; ++k) {
    if (k != kOtherBorder && symbols_[k == kMarkBorder ? 0x2581 : k] >= 0) continue;
    for (unsigned other = 0; other <= kOtherBorder; ++other) joins_[k * 256 + other] = joins_[other * 256 + k] = true;
  }
}

}  // namespace pare::tok
