// Encoding with the tables that bpe.cpp builds.
#include <algorithm>
#include <functional>

#include "pare/base/error.h"
#include "pare/tokenizer/bpe.h"
#include "pare/tokenizer/unicode.h"
#include "pare/tokenizer/word_cache.h"

namespace pare::tok {
namespace {

constexpr size_t kShortWord = 48;                 // symbols: up to here scanning for the best pair beats a heap
constexpr size_t kCutFrom = 32;                   // bytes: longer pieces are first cut where nothing can join
constexpr size_t kKeepScratch = size_t{1} << 16;  // entries: memory that one giant word needed is given back

constexpr int32_t kGone = -1;  // a symbol that was joined to the one before it

template <class T>
void push_least(std::vector<T>& heap, T value) {
  heap.push_back(value);
  std::push_heap(heap.begin(), heap.end(), std::greater<>());
}
template <class T>
T pop_least(std::vector<T>& heap) {
  std::pop_heap(heap.begin(), heap.end(), std::greater<>());
  const T least = heap.back();
  heap.pop_back();
  return least;
}

}  // namespace

// Nothing joins across a border whose two characters stand side by side in no merge, so both sides can be encoded by
// themselves: running text without pre-tokenizer (Llama 2) falls into words that the cache knows.
void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  if (piece.size() <= kCutFrom || options_.byte_letters || options_.ignore_merges)
    return encode_whole(piece, scratch, ids);
  size_t begin = 0;
  unsigned before = border_class(char_at(piece, 0).code);
  for (size_t at = char_at(piece, 0).bytes; at < piece.size();) {
    const Char c = char_at(piece, at);
    const unsigned now = border_class(c.code);
    if (!joins_[before * 256 + now]) {
      encode_whole(piece.substr(begin, at - begin), scratch, ids);
      begin = at;
    }
    before = now;
    at += c.bytes;
  }
  encode_whole(piece.substr(begin), scratch, ids);
}

void Bpe::encode_whole(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  const bool cached = WordCache::takes(piece);
  const uint64_t hash = cached ? WordCache::hash(piece) : 0;
  if (cached && scratch.cache.find(piece, hash, ids)) return;
  const size_t first = ids.size();
  encode_new(piece, scratch, ids);
  if (cached) scratch.cache.keep(piece, hash, std::span(ids).subspan(first));
}

void Bpe::encode_new(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  if (options_.byte_letters) {
    scratch.spelt = to_byte_letters(piece);
    piece = scratch.spelt;
  }
  if (options_.ignore_merges && piece.size() <= longest_piece_)
    if (const auto id = vocabulary_->find(piece)) return ids.push_back(*id);
  start_symbols(piece, scratch.symbols);
  merge(scratch);
  push_symbols(scratch.symbols, ids);
}

// The characters of a piece as symbols; those that are none as their bytes or as unknown.
void Bpe::start_symbols(std::string_view spelt, std::vector<int32_t>& symbols) const {
  symbols.clear();
  bool after_unknown = false;
  for (size_t i = 0; i < spelt.size();) {
    const Char c = char_at(spelt, i);
    const std::string_view character = spelt.substr(i, c.bytes);
    i += c.bytes;
    const int32_t id = find_symbol(c.code);
    const bool known = id >= 0 || (options_.byte_fallback && push_bytes(character, symbols));
    if (id >= 0)
      symbols.push_back(id);
    else if (!known && options_.unknown && !(after_unknown && options_.fuse_unknown))
      symbols.push_back(*options_.unknown);
    after_unknown = !known;
  }
}

bool Bpe::push_bytes(std::string_view character, std::vector<int32_t>& out) const {
  const auto id_of = [&](char b) { return byte_ids_[static_cast<uint8_t>(b)]; };
  if (!std::all_of(character.begin(), character.end(), [&](char b) { return id_of(b) >= 0; })) return false;
  for (const char b : character) out.push_back(id_of(b));
  return true;
}

bool Bpe::merges_reach_every_token() const {
  Scratch scratch;
  for (int32_t id = 0; id < vocabulary_->size(); ++id) {
    if (!vocabulary_->has(id) || vocabulary_->kind(id) != Kind::normal) continue;
    start_symbols(vocabulary_->piece(id), scratch.symbols);
    merge(scratch);
    if (scratch.symbols != std::vector<int32_t>{id}) return false;
  }
  return true;
}

void Bpe::merge(Scratch& scratch) const {
  scratch.symbols.size() <= kShortWord ? merge_short(scratch) : merge_long(scratch);
}

// merges[i] is what symbols i and i + 1 would become.
void Bpe::merge_short(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& merges = scratch.merges;
  merges.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) merges.push_back(pairs_.find(symbols[i], symbols[i + 1]));
  while (!merges.empty()) {
    const auto best =
        std::min_element(merges.begin(), merges.end(), [](const auto& a, const auto& b) { return a.rank < b.rank; });
    if (best->rank == PairTable::kNone) break;
    const auto at = static_cast<size_t>(best - merges.begin());
    symbols[at] = best->joined;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    merges.erase(best);
    if (at > 0) merges[at - 1] = pairs_.find(symbols[at - 1], symbols[at]);
    if (at < merges.size()) merges[at] = pairs_.find(symbols[at], symbols[at + 1]);
  }
}

// The same for words of any length: a linked list, and for every rank the places where it was seen. Pairs are taken
// rank by rank and from left to right, so a giant word is walked through in order instead of jumped about in.
void Bpe::merge_long(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& next = scratch.next;
  auto& previous = scratch.previous;
  auto& ranks = scratch.ranks;
  const auto count = static_cast<int32_t>(symbols.size());
  next.resize(symbols.size());
  previous.resize(symbols.size());
  scratch.places.resize(ranks_);
  const auto symbol = [&](int32_t i) -> int32_t& { return symbols[static_cast<size_t>(i)]; };
  const auto next_of = [&](int32_t i) -> int32_t& { return next[static_cast<size_t>(i)]; };
  const auto previous_of = [&](int32_t i) -> int32_t& { return previous[static_cast<size_t>(i)]; };
  const auto pair_at = [&](int32_t i) {
    return i >= 0 && symbol(i) != kGone && next_of(i) >= 0 ? pairs_.find(symbol(i), symbol(next_of(i)))
                                                           : PairTable::Merge{PairTable::kNone, -1};
  };
  const auto offer = [&](int32_t at) {
    const uint32_t rank = pair_at(at).rank;
    if (rank == PairTable::kNone) return;
    auto& places = scratch.places[rank];
    if (places.empty()) push_least(ranks, rank);
    push_least(places, at);
  };

  for (int32_t i = 0; i < count; ++i) previous_of(i) = i - 1, next_of(i) = i + 1 < count ? i + 1 : -1;
  for (int32_t i = 0; i < count; ++i) offer(i);
  while (!ranks.empty()) {
    const uint32_t rank = ranks.front();
    auto& places = scratch.places[rank];
    const int32_t at = pop_least(places);
    if (places.empty()) pop_least(ranks);
    const PairTable::Merge merge = pair_at(at);
    if (merge.rank != rank) continue;  // overtaken by another merge
    const int32_t right = next_of(at);
    symbol(at) = merge.joined;
    symbol(right) = kGone;
    next_of(at) = next_of(right);
    if (next_of(right) >= 0) previous_of(next_of(right)) = at;
    offer(previous_of(at));
    offer(at);
  }
  std::erase(symbols, kGone);
  if (next.size() > kKeepScratch) scratch.places = {}, next = {}, previous = {};
}

void Bpe::push_symbols(std::span<const int32_t> symbols, std::vector<int32_t>& ids) const {
  const auto size = static_cast<int32_t>(vocabulary_->size());
  bool after_unknown = false;
  for (const int32_t symbol : symbols) {
    const bool extra = symbol >= size;
    if (extra && options_.byte_fallback && push_bytes(extra_symbols_[static_cast<size_t>(symbol - size)], ids)) {
      after_unknown = false;
      continue;
    }
    const std::optional<int32_t> id = extra ? options_.unknown : std::optional(symbol);
    const bool unknown = id == options_.unknown;
    if (id && !(unknown && after_unknown && options_.fuse_unknown)) ids.push_back(*id);
    after_unknown = unknown;
  }
}

}  // namespace pare::tok
