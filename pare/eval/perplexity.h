// How well a model predicts a text: perplexity under the protocols that published numbers use, each with its standard
// error. Sources: formats.md §7.1-7.2 (transformers' documentation, the GPTQ paper's code, llama.cpp's
// llama-perplexity).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "pare/base/progress.h"
#include "pare/model/decoder.h"

namespace pare {

enum class PerplexityProtocol : uint8_t {
  // Windows of `context` tokens start every `stride` tokens; a window scores the tokens that the one before did not
  // reach. With stride = context the first token of every window is never scored. The last window may be shorter.
  hf,
  // Whole windows side by side, the tail dropped; exp of the mean over windows of the mean over a window's
  // context - 1 predicted tokens.
  gptq,
  // Whole windows side by side; the first token is replaced by BOS for the forward pass, where the vocabulary adds one;
  // only the predictions from position context/2 on are scored. At least two windows.
  llama_cpp,
};
std::string_view name_of(PerplexityProtocol protocol);  // "hf", "gptq", "llama.cpp"
std::span<const PerplexityProtocol> all_perplexity_protocols();

struct PerplexityOptions {
  PerplexityProtocol protocol = PerplexityProtocol::hf;
  int64_t context = 0;     // 0: the protocol's default, at most the model's context (hf and gptq 2048, llama.cpp 512)
  int64_t stride = 0;      // hf only; 0: context
  int64_t max_tokens = 0;  // only the text's first tokens; 0: all
  int64_t logit_bytes = int64_t{64} << 20;  // of a block of logits in memory (at least 16 rows)
};

struct Perplexity {
  double perplexity = 0;
  // hf, gptq: batch means over consecutive scored tokens (neighbours are correlated). llama.cpp: its own formula, which
  // takes every token as independent and so is smaller. NaN where one scored token gives no error.
  double perplexity_stderr = 0;
  double mean_nll = 0;  // ln(perplexity)
  int64_t tokens = 0;   // scored
  int64_t windows = 0;
  int64_t context = 0, stride = 0;  // as used
  PerplexityProtocol protocol = PerplexityProtocol::hf;
};

// `tokens` is the whole text, tokenized once with what the tokenizer adds by itself. `bos` is the id that stands first
// in every window of llama.cpp's protocol; nullopt where the vocabulary adds none. Memory: one window's hidden states
// and a block of logits. Throws Error when the text is too short for the protocol.
Perplexity perplexity(const Decoder& model, std::span<const int32_t> tokens, std::optional<int32_t> bos,
                      const PerplexityOptions& options, const Observer& observer = {});

// One window of a protocol: tokens [begin, end) go through the model, and those at [first_scored, end) are predicted.
struct ScoredWindow {
  int64_t begin = 0, end = 0, first_scored = 0;
  bool operator==(const ScoredWindow&) const = default;
};
// Options with the defaults filled in for a model of this context (0: unknown).
PerplexityOptions resolved(PerplexityOptions options, int64_t model_context);
// The windows over `count` tokens; options are resolved. Throws Error when there are too few.
std::vector<ScoredWindow> scored_windows(const PerplexityOptions& options, int64_t count);

// -log softmax(logits)[target]: the sum of exponentials in double.
double negative_log_likelihood(std::span<const float> logits, int32_t target);

// Standard error of the mean of correlated values: batches of `batch` consecutive values are taken as independent, as
// long as that leaves 20 of them; else shorter batches.
double batch_means_error(std::span<const double> values, int64_t batch);
// Of independent values, as llama.cpp has it: sqrt((mean of squares - mean²) / (count - 1)).
double independent_error(std::span<const double> values);

}  // namespace pare
