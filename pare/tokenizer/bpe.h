// Byte-pair encoding of one piece of text: characters, then the best-ranked neighbours joined until none is left.
// Both ways of writing the ranks down end in one table: (left, right) -> (rank, joined).
//   merges  a list of pairs; the rank is the place in the list
//   scores  SentencePiece: any two neighbours whose concatenation is a piece, ranked by its score
// Equal ranks go leftmost first.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pare/tokenizer/vocabulary.h"
#include "pare/tokenizer/word_cache.h"

namespace pare::tok {

struct BpeOptions {
  bool byte_letters = false;            // pieces arrive as text and are spelt in the byte-level alphabet here
  bool byte_fallback = false;           // an unknown character becomes its <0xNN> tokens
  bool ignore_merges = false;           // a piece that is a token is that token
  bool fuse_unknown = false;            // neighbouring unknown characters become one
  std::optional<int32_t> unknown = {};  // without: unknown characters vanish
};

// (left id, right id) -> (rank, joined id): open addressing, at most half full.
class PairTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t joined;
  };
  static constexpr uint32_t kNone = UINT32_MAX;  // the rank of pairs that do not join

  explicit PairTable(size_t count);
  void set(int32_t left, int32_t right, Merge merge);
  Merge find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t at = slot_of(key);; at = (at + 1) & mask_) {
      const Entry& entry = entries_[at];
      if (entry.key == key) return entry.merge;
      if (entry.key == kEmpty) return {kNone, -1};
    }
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  struct Entry {
    uint64_t key = kEmpty;
    Merge merge{};
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t key) const { return static_cast<size_t>((key * 0x9e3779b97f4a7c15u) >> shift_); }

  std::vector<Entry> entries_;
  size_t mask_;
  int shift_;
};

class Bpe {
 public:
  using Merges = std::vector<std::pair<std::string, std::string>>;

  // `where` names the file in messages. Throws Error when a merge names what is not in the vocabulary.
  static Bpe from_merges(std::shared_ptr<const Vocabulary> vocabulary, const Merges& merges, const BpeOptions& options,
                         const std::string& where);
  // Normal and user-defined pieces join; `scores` has one entry per id.
  static Bpe from_scores(std::shared_ptr<const Vocabulary> vocabulary, std::span<const float> scores,
                         const BpeOptions& options);

  // What one call of encode after another reuses; for one thread at a time and one Bpe.
  class Scratch {
    friend class Bpe;
    WordCache cache;
    std::string spelt;
    std::vector<int32_t> symbols, next, previous;
    std::vector<PairTable::Merge> merges;
    std::vector<std::vector<int32_t>> places;  // by rank: where a pair of that rank stood, least first (a heap)
    std::vector<uint32_t> ranks;               // those with places, least first (a heap)
  };

  // Appends the ids of `piece` (well-formed UTF-8, below 2 GiB).
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;
  // Whether the merges build every normal token from its own characters: then ignore_merges changes nothing.
  bool merges_reach_every_token() const;
  const BpeOptions& options() const { return options_; }

 private:
  Bpe(std::shared_ptr<const Vocabulary> vocabulary, const BpeOptions& options, size_t pairs);
  void add_symbol(uint32_t code, int32_t id);
  int32_t find_symbol(uint32_t code) const;
  int32_t part_of_piece(std::string_view part);
  void note_border(std::string_view left, std::string_view right);
  void close_unknown_borders();

  void encode_whole(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;
  void encode_new(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;
  void start_symbols(std::string_view spelt, std::vector<int32_t>& symbols) const;
  bool push_bytes(std::string_view character, std::vector<int32_t>& out) const;
  void merge(Scratch& scratch) const;
  void merge_short(Scratch& scratch) const;
  void merge_long(Scratch& scratch) const;
  void push_symbols(std::span<const int32_t> symbols, std::vector<int32_t>& ids) const;

  std::shared_ptr<const Vocabulary> vocabulary_;
  BpeOptions options_;
  PairTable pairs_;
  size_t longest_piece_ = 0;
  size_t ranks_ = 0;                                    // one past the last
  std::vector<int32_t> symbols_;                        // by code point of the basic plane; -1: none
  std::unordered_map<uint32_t, int32_t> high_symbols_;  // beyond it
  std::vector<std::string> extra_symbols_;  // characters that are no token but part of one: ids from vocabulary size on
  std::array<int32_t, 256> byte_ids_;       // the <0xNN> tokens, -1 where missing
  std::vector<bool> joins_;                 // [left class * 256 + right class]: may the two characters be joined?
};

// Classes of characters at a border: ASCII by value, ▁, everything else.
inline constexpr unsigned kMarkBorder = 128, kOtherBorder = 129;
inline unsigned border_class(uint32_t code) { return code < 128 ? code : code == 0x2581 ? kMarkBorder : kOtherBorder; }

}  // namespace pare::tok
