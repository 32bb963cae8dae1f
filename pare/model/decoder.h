// One decoder for every architecture of the table; weights float or packed. The forward pass is written once, in steps
// that calibration can stop between.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pare/kernels/packed.h"
#include "pare/model/arch.h"

namespace pare {

// Where inputs of linears are measured: a site, of one expert (-1: of what every token takes).
struct Tap {
  Site site = Site::attn_in;
  int expert = -1;
  bool operator==(const Tap&) const = default;
};

struct Linear {
  Role role = Role::q;
  Tap tap;
  int layer = 0;
  std::string name;  // in the checkpoint's own spelling, with ".weight"
  Shape shape;       // rows = outputs, cols = inputs
};

// Keys and values of the tokens seen so far, for one sequence. Under dynamic rope scaling old keys keep the rotation of
// the length at which they were made, as in transformers.
class KvCache {
 public:
  KvCache(const Config& config, int64_t capacity);  // positions
  int64_t length() const { return length_; }
  int64_t capacity() const { return capacity_; }
  int64_t bytes() const;
  void truncate(int64_t length);

 private:
  friend class Decoder;
  int64_t capacity_, length_ = 0;
  std::vector<Matrix> keys_, values_;  // per layer: capacity x (kv_heads * head_dim)
};

class Decoder {
 public:
  // Maps the weights; float ones are not read yet but for norms and biases, quantized ones are packed, one at a time.
  // Shapes are checked against the configuration here. Throws Error.
  explicit Decoder(std::shared_ptr<const Checkpoint> checkpoint);
  ~Decoder();

  const Config& config() const;
  const Arch& arch() const;
  const Checkpoint& checkpoint() const;

  // ---- running. Throws Error for ids outside the vocabulary and more tokens than learned positions or the cache has.
  // Hidden states after the last block's norm are turned into logits: tokens x vocab, for all or only the last token.
  Matrix forward(std::span<const int32_t> tokens, KvCache& cache, bool all_logits) const;
  // A fresh sequence without a cache.
  Matrix logits(std::span<const int32_t> tokens) const;
  // How many tokens a sequence may have; beyond their context rotary models only get worse, so theirs is unlimited.
  int64_t max_length() const;

  // ---- calibrating: a sequence goes through in these steps, `hidden` being tokens x hidden. embed, attention and
  // feed_forward of every layer, and head give exactly logits(). Between attention and feed_forward `hidden` may have
  // further columns.
  std::vector<Linear> linears(int layer) const;  // in the order of their taps
  std::vector<Tap> taps(int layer) const;        // those that linears of the layer have, in the order of computation
  Matrix embed(std::span<const int32_t> tokens) const;
  // The input of a tap's linears, given the state before the attention or before the feed-forward that it belongs to.
  // Of an expert: one row for each token that takes it, or for all.
  Matrix tap_input(int layer, Tap tap, const Matrix& hidden, bool all_tokens = false) const;
  void attention(int layer, Matrix& hidden) const;     // adds the attention's output
  void feed_forward(int layer, Matrix& hidden) const;  // adds the feed-forward's output
  Matrix head(const Matrix& hidden) const;             // final norm and output embedding: tokens x vocab

  // ---- weights of the decoder's linears, while quantizing
  Matrix weight(const Linear& linear) const;  // the checkpoint's, as floats, rows = outputs in the file's order
  void replace(const Linear& linear, PackedMatrix weight);  // later steps multiply by this one
  void forget_layer(int layer);  // replaced weights are dropped, mapped pages given back; the layer is the file's again

  int64_t weight_bytes() const;  // as packed in memory or mapped

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pare
