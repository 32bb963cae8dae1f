#include <fmt/format.h>

#include <charconv>

#include "pare/base/interrupt.h"
#include "pare/base/mapped_file.h"
#include "pare/base/output.h"
#include "pare/base/system.h"
#include "pare/base/utf8.h"
#include "pare/cli/commands.h"
#include "pare/container/safetensors.h"
#include "pare/model/generate.h"

namespace pare::cli {
namespace {

constexpr int64_t kUsualCount = 100;

struct RunOptions {
  std::string model;
  std::optional<std::string> prompt, prompt_file, tokens, logits;
  std::optional<int64_t> count;
  double temperature = 0, top_p = 1, min_p = 0;
  int64_t top_k = 0, seed = 0;
  bool ignore_eos = false;
};

void add_options(Options& options, RunOptions& run) {
  options.add({.names = "MODEL", .target = &run.model, .help = "HF directory or .gguf file", .required = true})
      .add({.names = "-p,--prompt", .value = "TEXT", .target = &run.prompt, .help = "the text to continue"})
      .add({.names = "--prompt-file", .value = "FILE", .target = &run.prompt_file, .help = "… from a file"})
      .add({.names = "--tokens",
            .value = "1,5,9",
            .target = &run.tokens,
            .help = "… as token ids, taken as they are; no tokenizer is needed"})
      .add({.names = "-n,--count",
            .value = "N",
            .target = &run.count,
            .help = "tokens to generate (default 100; 0 with --logits)",
            .lowest = 0})
      .add({.names = "--temperature",
            .value = "X",
            .target = &run.temperature,
            .help = "0: always the likeliest token (default); 1: as the model says",
            .lowest = 0})
      .add({.names = "--top-k",
            .value = "N",
            .target = &run.top_k,
            .help = "only the N likeliest tokens (default 0: all)",
            .lowest = 0})
      .add({.names = "--top-p",
            .value = "X",
            .target = &run.top_p,
            .help = "only the likeliest that together have this probability (default 1)",
            .lowest = 0})
      .add({.names = "--min-p",
            .value = "X",
            .target = &run.min_p,
            .help = "only tokens at least this likely, relative to the likeliest (default 0)",
            .lowest = 0})
      .add({.names = "--seed", .value = "N", .target = &run.seed, .help = "of the random choice (default 0)"})
      .add({.names = "--ignore-eos", .target = &run.ignore_eos, .help = "go on after the end of the text"})
      .add({.names = "--logits",
            .value = "FILE",
            .target = &run.logits,
            .help = "save f32 logits of every prompt position: safetensors, tensor 'logits'"});
}

[[noreturn]] void refuse(const std::string& where, const std::string& what, const std::string& expected,
                         const std::string& got, const std::string& remedy) {
  throw Error(
      {.what = what, .where = where, .expected = expected, .got = got, .remedy = remedy, .code = ExitCode::usage});
}

void check_options(const RunOptions& run) {
  const int prompts = (run.prompt ? 1 : 0) + (run.prompt_file ? 1 : 0) + (run.tokens ? 1 : 0);
  if (prompts != 1)
    refuse("pare run", "one prompt is needed", "one of --prompt, --prompt-file, --tokens",
           prompts == 0 ? "none" : "several", "for example: -p \"Once upon a time\"");
  if (run.top_p <= 0 || run.top_p > 1)
    refuse("--top-p", "a probability is needed", "above 0, at most 1", fmt::format("{}", run.top_p), "");
  if (run.min_p > 1) refuse("--min-p", "a probability is needed", "0 … 1", fmt::format("{}", run.min_p), "");
  if (run.count.value_or(0) > INT32_MAX || run.top_k > INT32_MAX)
    refuse("pare run", "a number is too large", fmt::format("at most {}", INT32_MAX), "", "");
}

std::vector<int32_t> parse_ids(const std::string& text) {
  std::vector<int32_t> ids;
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    while (at < end && (*at == ',' || *at == ' ')) ++at;
    if (at == end) break;
    int32_t id = 0;
    const auto [stop, code] = std::from_chars(at, end, id);
    if (code != std::errc() || (stop < end && *stop != ',' && *stop != ' '))
      refuse("--tokens", "the list cannot be read", "ids separated by commas", fmt::format("'{}'", text), "");
    ids.push_back(id);
    at = stop;
  }
  return ids;
}

std::string prompt_text(const RunOptions& run) {
  std::string text = run.prompt ? *run.prompt : read_text_file(*run.prompt_file);
  if (const size_t bad = first_invalid_utf8(text); bad != text.size())
    throw Error({.what = "the prompt is not UTF-8",
                 .where = fmt::format("{} at byte {}", run.prompt_file.value_or("--prompt"), bad),
                 .remedy = "convert it, for example with iconv -t UTF-8"});
  return text;
}

void check_prompt(const Config& config, std::span<const int32_t> prompt) {
  if (prompt.empty())
    throw Error({.what = "the prompt has no tokens", .where = "prompt", .remedy = "write at least one word"});
  for (size_t i = 0; i < prompt.size(); ++i)
    if (prompt[i] < 0 || prompt[i] >= config.vocab)
      throw Error({.what = "the prompt has a token that the model does not know",
                   .where = fmt::format("prompt token {}", i),
                   .expected = fmt::format("0 … {}", config.vocab - 1),
                   .got = std::to_string(prompt[i])});
}

// Dynamic rope scaling stretches with the text, up to its factor.
int64_t usable_context(const Config& config) {
  const bool stretches = config.rope.kind == Rope::Kind::dynamic && config.position == PositionKind::rope;
  return static_cast<int64_t>(static_cast<double>(config.context) * (stretches ? config.rope.factor : 1));
}

// How many tokens to generate: the text ends where the model's context does, and the user is told.
int64_t fitting_count(const Config& config, int64_t prompt, const RunOptions& run, Session& session) {
  const int64_t wanted = run.count.value_or(run.logits ? 0 : kUsualCount), context = usable_context(config);
  if (context <= 0 || prompt + wanted <= context) return wanted;
  const bool overlong = prompt > context;
  if ((overlong && config.position == PositionKind::learned) || (wanted > 0 && prompt >= context))
    throw Error({.what = overlong ? "the prompt is longer than the model's context"
                                  : "the prompt fills the model's context and leaves no room to go on",
                 .where = "prompt",
                 .expected = fmt::format("at most {} tokens", wanted > 0 ? context - 1 : context),
                 .got = std::to_string(prompt),
                 .remedy = "shorten it"});
  if (overlong) {
    session.warning(fmt::format("the prompt's {} tokens are more than the {} this model is made for", prompt, context));
    return wanted;
  }
  session.warning(fmt::format("the model's context of {} tokens leaves room for {} after the prompt, not {}", context,
                              context - prompt, wanted));
  return context - prompt;
}

void save_logits(const Decoder& model, std::span<const int32_t> prompt, const std::string& path) {
  const int64_t positions = static_cast<int64_t>(prompt.size()), vocab = model.config().vocab;
  const int64_t needed = 4 * positions * vocab;
  if (needed > available_memory_bytes())
    throw Error({.what = "the logits do not fit into memory",
                 .where = "--logits",
                 .expected = fmt::format("{} bytes", needed),
                 .got = fmt::format("{} available", available_memory_bytes()),
                 .remedy = "shorten the prompt",
                 .code = ExitCode::no_room});
  const Matrix logits = model.logits(prompt);
  SafetensorsWriter writer(path, {{.name = "logits", .dtype = DType::f32, .shape = {positions, vocab}}});
  writer.add("logits", std::as_bytes(logits.values()));
  writer.commit();
}

// The tokenizer; with --tokens the work can be done without one.
std::shared_ptr<const Tokenizer> find_tokenizer(const Checkpoint& checkpoint, const RunOptions& run, Session& session) {
  if (!run.tokens) return load_tokenizer(checkpoint);
  try {
    return load_tokenizer(checkpoint);
  } catch (const Error& e) {
    if (run.count.value_or(run.logits ? 0 : 1) > 0)
      session.message(fmt::format("printing token ids only: {}", e.what()));
    return nullptr;
  }
}

std::vector<int32_t> stop_tokens(const Config& config, const Tokenizer* tokenizer, const RunOptions& run) {
  if (run.ignore_eos) return {};
  std::vector<int32_t> stop = tokenizer ? tokenizer->eos() : std::vector<int32_t>{};
  stop.insert(stop.end(), config.eos_ids.begin(), config.eos_ids.end());
  return stop;
}

// Prints the continuation while it comes.
class Printer {
 public:
  Printer(std::shared_ptr<const Tokenizer> tokenizer, std::span<const int32_t> prompt, Session& session)
      : session_(session) {
    if (tokenizer) decoder_.emplace(std::move(tokenizer), prompt);
  }
  bool take(int32_t id) {
    check_interrupt();
    print(decoder_ ? decoder_->push(id) : fmt::format("{}{}", text_.empty() ? "" : ",", id));
    return true;
  }
  std::string finish() {
    if (decoder_) print(decoder_->finish());
    return text_;
  }

 private:
  void print(const std::string& text) {
    text_ += text;
    session_.stream(text);
  }
  Session& session_;
  std::optional<StreamDecoder> decoder_;
  std::string text_;
};

std::string speed_text(const Generated& out, size_t prompt) {
  const auto rate = [](size_t tokens, double seconds) { return static_cast<double>(tokens) / std::max(seconds, 1e-9); };
  return fmt::format("prompt: {} tokens in {:.2f} s ({:.0f} tokens/s); generated: {} in {:.2f} s ({:.1f} tokens/s)",
                     prompt, out.prefill_seconds, rate(prompt, out.prefill_seconds), out.tokens.size(),
                     out.decode_seconds, rate(out.tokens.size(), out.decode_seconds));
}

}  // namespace

int run_command(Session& session, std::span<const std::string> arguments) {
  RunOptions run;
  Options options({.command = "run",
                   .summary = "Continues a text, printing it as it comes.",
                   .example = "pare run demo_model -p \"Once upon a time\" -n 100 --temperature 0.8"});
  add_options(options, run);
  if (!parse_command(options, session, arguments)) return 0;
  check_options(run);
  if (run.logits) check_output_path(*run.logits, true);

  const auto checkpoint = open_model(run.model, session);
  if (run.logits) refuse_overwriting_model(*checkpoint, *run.logits, "--logits");
  const auto tokenizer = find_tokenizer(*checkpoint, run, session);
  const Decoder model(checkpoint);
  const std::vector<int32_t> prompt = run.tokens ? parse_ids(*run.tokens) : tokenizer->encode(prompt_text(run));
  check_prompt(model.config(), prompt);
  const int64_t count = fitting_count(model.config(), static_cast<int64_t>(prompt.size()), run, session);
  if (run.logits) save_logits(model, prompt, *run.logits);

  Printer printer(tokenizer, prompt, session);
  if (count > 0 && !run.tokens) session.stream(prompt_text(run));
  Generated out;
  if (count > 0)
    out = generate(model, prompt, static_cast<int>(count),
                   {.temperature = run.temperature,
                    .top_k = static_cast<int>(run.top_k),
                    .top_p = run.top_p,
                    .min_p = run.min_p,
                    .seed = static_cast<uint64_t>(run.seed)},
                   stop_tokens(model.config(), tokenizer.get(), run), [&](int32_t id) { return printer.take(id); });
  const std::string text = printer.finish();
  session.result({{"prompt_tokens", prompt},
                  {"tokens", out.tokens},
                  {"text", tokenizer ? Json(text) : Json(nullptr)},
                  {"prefill_seconds", out.prefill_seconds},
                  {"decode_seconds", out.decode_seconds}},
                 count > 0 ? "\n" : "");
  if (run.logits) session.message(fmt::format("logits of {} positions written to {}", prompt.size(), *run.logits));
  if (count > 0) session.message(speed_text(out, prompt.size()));
  return 0;
}

}  // namespace pare::cli
