#include "pare/eval/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "pare/base/error.h"
#include "pare/base/interrupt.h"
#include "pare/base/threads.h"

namespace pare {
namespace {

constexpr PerplexityProtocol kProtocols[] = {PerplexityProtocol::hf, PerplexityProtocol::gptq,
                                             PerplexityProtocol::llama_cpp};
constexpr int64_t kFewestRows = 16;
constexpr int64_t kFewestBatches = 20;

void check_options(const PerplexityOptions& options) {
  if (options.context < 2)
    throw Error({.what = "a context must hold a token and the one after it",
                 .where = "context",
                 .expected = "at least 2",
                 .got = std::to_string(options.context),
                 .code = ExitCode::usage});
  if (options.stride < 1 || options.stride > options.context)
    throw Error({.what = "the stride must be between 1 and the context, or tokens would be left out",
                 .where = "stride",
                 .expected = fmt::format("1 … {}", options.context),
                 .got = std::to_string(options.stride),
                 .code = ExitCode::usage});
  if (options.protocol != PerplexityProtocol::hf && options.stride != options.context)
    throw Error({.what = fmt::format("the {} protocol has no stride", name_of(options.protocol)),
                 .where = "stride",
                 .remedy = "leave it out, or use the hf protocol",
                 .code = ExitCode::usage});
}

void check_context(const Config& config, int64_t context, const Observer& observer) {
  if (config.context <= 0 || context <= config.context) return;
  if (config.position == PositionKind::learned)
    throw Error({.what = "the model has no positions for this context",
                 .where = "context",
                 .expected = fmt::format("at most {}", config.context),
                 .got = std::to_string(context),
                 .remedy = fmt::format("use --context {}", config.context)});
  observer.warn(
      fmt::format("a context of {} is longer than the {} tokens this model is made for; expect a worse perplexity",
                  context, config.context));
}

void check_tokens(const Config& config, std::span<const int32_t> tokens) {
  const auto bad = std::ranges::find_if(tokens, [&](int32_t id) { return id < 0 || id >= config.vocab; });
  if (bad == tokens.end()) return;
  throw Error({.what = "the text has a token that the model does not know",
               .where = fmt::format("token {} of the text", bad - tokens.begin()),
               .expected = fmt::format("an id below {}", config.vocab),
               .got = std::to_string(*bad),
               .remedy = "tokenizer and model do not belong together"});
}

[[noreturn]] void refuse_short_text(int64_t count, int64_t needed, const std::string& why) {
  throw Error({.what = "the text is too short: " + why,
               .expected = fmt::format("at least {} tokens", needed),
               .got = std::to_string(count),
               .remedy = "take a longer text or a smaller context"});
}

std::vector<ScoredWindow> sliding_windows(int64_t context, int64_t stride, int64_t count) {
  std::vector<ScoredWindow> windows;
  for (int64_t begin = 0, reached = 0; reached < count; begin += stride) {
    const int64_t end = std::min(begin + context, count);
    const int64_t first = std::max(reached, begin + 1);  // nothing stands before the first token of a window
    if (first < end) windows.push_back({begin, end, first});
    reached = end;
  }
  return windows;
}

std::vector<ScoredWindow> whole_windows(int64_t context, int64_t skipped, int64_t count) {
  std::vector<ScoredWindow> windows;
  for (int64_t begin = 0; begin + context <= count; begin += context)
    windows.push_back({begin, begin + context, begin + skipped});
  return windows;
}

// Rows [first, last) of a matrix as one of its own.
Matrix copy_rows(const Matrix& m, int64_t first, int64_t last) {
  return copy_of(MatrixView(m).rows_between(first, last));
}

// The state of every position after the last block, before the final norm.
Matrix hidden_states(const Decoder& model, std::span<const int32_t> tokens) {
  Matrix hidden = model.embed(tokens);
  for (int layer = 0; layer < static_cast<int>(model.config().layers); ++layer) {
    model.attention(layer, hidden);
    model.feed_forward(layer, hidden);
    check_interrupt();
  }
  return hidden;
}

// Losses of predicting targets[i] from row first + i of `hidden`, the logits of a few rows at a time.
void append_losses(const Decoder& model, const Matrix& hidden, int64_t first, std::span<const int32_t> targets,
                   int64_t logit_bytes, std::vector<double>& losses) {
  const int64_t count = static_cast<int64_t>(targets.size());
  const int64_t rows = std::max(kFewestRows, logit_bytes / (4 * model.config().vocab));
  const size_t offset = losses.size();
  losses.resize(offset + targets.size());
  for (int64_t begin = 0; begin < count; begin += rows) {
    const int64_t end = std::min(begin + rows, count);
    const Matrix logits = model.head(copy_rows(hidden, first + begin, first + end));
    parallel_for(end - begin, [&](int64_t r) {
      const size_t at = static_cast<size_t>(begin + r);
      losses[offset + at] = negative_log_likelihood({logits.row(r), static_cast<size_t>(logits.cols())}, targets[at]);
    });
    check_interrupt();
  }
}

void append_window(const Decoder& model, std::span<const int32_t> tokens, const ScoredWindow& window,
                   std::optional<int32_t> first_token, int64_t logit_bytes, std::vector<double>& losses) {
  const auto begin = static_cast<size_t>(window.begin), length = static_cast<size_t>(window.end - window.begin);
  std::vector<int32_t> input(tokens.begin() + window.begin, tokens.begin() + window.end);
  if (first_token) input[0] = *first_token;
  const size_t scored = static_cast<size_t>(window.first_scored - window.begin);
  append_losses(model, hidden_states(model, input), window.first_scored - window.begin - 1,
                tokens.subspan(begin + scored, length - scored), logit_bytes, losses);
}

void check_finite(std::span<const double> losses, size_t first, int64_t window) {
  for (size_t i = first; i < losses.size(); ++i)
    if (!std::isfinite(losses[i]))
      throw Error({.what = "the model's output is not a number",
                   .where = fmt::format("window {}, scored token {}", window + 1, i - first),
                   .remedy = "the weights are damaged or overflow; look at them with 'pare inspect'"});
}

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

std::string_view name_of(PerplexityProtocol protocol) {
  switch (protocol) {
    case PerplexityProtocol::hf:
      return "hf";
    case PerplexityProtocol::gptq:
      return "gptq";
    case PerplexityProtocol::llama_cpp:
      return "llama.cpp";
  }
  return "";
}

std::span<const PerplexityProtocol> all_perplexity_protocols() { return kProtocols; }

PerplexityOptions resolved(PerplexityOptions options, int64_t model_context) {
  const int64_t usual = options.protocol == PerplexityProtocol::llama_cpp ? 512 : 2048;
  if (options.context == 0) options.context = model_context > 0 ? std::min(usual, model_context) : usual;
  if (options.stride == 0) options.stride = options.context;
  return options;
}

std::vector<ScoredWindow> scored_windows(const PerplexityOptions& options, int64_t count) {
  check_options(options);
  const int64_t context = options.context;
  switch (options.protocol) {
    case PerplexityProtocol::hf:
      if (count < 2) refuse_short_text(count, 2, "nothing can be predicted");
      return sliding_windows(context, options.stride, count);
    case PerplexityProtocol::gptq:
      if (count < context) refuse_short_text(count, context, "the gptq protocol takes whole windows");
      return whole_windows(context, 1, count);
    case PerplexityProtocol::llama_cpp:
      if (count < 2 * context) refuse_short_text(count, 2 * context, "the llama.cpp protocol needs two windows");
      return whole_windows(context, context / 2 + 1, count);
  }
  return {};
}

double negative_log_likelihood(std::span<const float> logits, int32_t target) {
  const float largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float x : logits) sum += static_cast<double>(std::exp(x - largest));
  return std::log(sum) - static_cast<double>(logits[static_cast<size_t>(target)] - largest);
}

double batch_means_error(std::span<const double> values, int64_t batch) {
  const int64_t count = static_cast<int64_t>(values.size());
  batch = std::clamp(count / kFewestBatches, int64_t{1}, std::max<int64_t>(batch, 1));
  const int64_t batches = count / batch;  // the last one takes the rest as well
  if (batches < 2) return std::numeric_limits<double>::quiet_NaN();
  const double mean = mean_of(values);
  double squares = 0;
  for (int64_t b = 0; b < batches; ++b) {
    const int64_t end = b + 1 == batches ? count : (b + 1) * batch;
    double excess = 0;
    for (int64_t i = b * batch; i < end; ++i) excess += values[static_cast<size_t>(i)] - mean;
    squares += excess * excess;
  }
  const auto n = static_cast<double>(batches);
  return std::sqrt(squares * n / (n - 1)) / static_cast<double>(count);
}

double independent_error(std::span<const double> values) {
  const auto count = static_cast<double>(values.size());
  const double mean = mean_of(values);
  double squares = 0;
  for (const double x : values) squares += (x - mean) * (x - mean);
  return values.size() < 2 ? std::numeric_limits<double>::quiet_NaN() : std::sqrt(squares / count / (count - 1));
}

Perplexity perplexity(const Decoder& model, std::span<const int32_t> tokens, std::optional<int32_t> bos,
                      const PerplexityOptions& wanted, const Observer& observer) {
  const PerplexityOptions options = resolved(wanted, model.config().context);
  if (options.max_tokens > 0) tokens = tokens.first(std::min(tokens.size(), static_cast<size_t>(options.max_tokens)));
  const auto windows = scored_windows(options, static_cast<int64_t>(tokens.size()));
  check_context(model.config(), options.context, observer);
  check_tokens(model.config(), tokens);

  const bool like_llama_cpp = options.protocol == PerplexityProtocol::llama_cpp;
  const auto total = static_cast<int64_t>(windows.size());
  std::vector<double> losses;
  double sum = 0;
  // A window per thread: small models leave too little work inside one. Order and sums do not depend on the batch.
  const auto batch = static_cast<int64_t>(threads());
  for (int64_t first = 0; first < total; first += batch) {
    check_interrupt();
    std::vector<std::vector<double>> parts(static_cast<size_t>(std::min(batch, total - first)));
    parallel_for(std::ssize(parts), [&](int64_t i) {
      append_window(model, tokens, windows[static_cast<size_t>(first + i)], like_llama_cpp ? bos : std::nullopt,
                    options.logit_bytes, parts[static_cast<size_t>(i)]);
    });
    for (int64_t w = first; w < first + std::ssize(parts); ++w) {
      const std::vector<double>& part = parts[static_cast<size_t>(w - first)];
      check_finite(part, 0, w);
      losses.insert(losses.end(), part.begin(), part.end());
      sum += std::accumulate(part.begin(), part.end(), 0.0);
      observer.report({.stage = "evaluate",
                       .detail = fmt::format("window {}", w + 1),
                       .done = w + 1,
                       .total = total,
                       .error = std::exp(sum / static_cast<double>(losses.size()))});
    }
  }
  const double mean = mean_of(losses);  // windows of the gptq protocol are equally long: the mean of their means
  const double error = like_llama_cpp ? independent_error(losses) : batch_means_error(losses, options.context);
  return {.perplexity = std::exp(mean),
          .perplexity_stderr = std::exp(mean) * error,
          .mean_nll = mean,
          .tokens = static_cast<int64_t>(losses.size()),
          .windows = total,
          .context = options.context,
          .stride = options.stride,
          .protocol = options.protocol};
}

}  // namespace pare
