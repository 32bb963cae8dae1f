#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "pare/base/mapped_file.h"
#include "pare/base/utf8.h"
#include "pare/cli/commands.h"
#include "pare/eval/perplexity.h"

namespace pare::cli {
namespace {

std::string read_evaluation_text(const std::string& path) {
  std::string text = read_text_file(path);
  if (text.empty())
    throw Error({.what = "the text is empty", .where = path, .remedy = "take a text of some thousand words"});
  if (const size_t bad = first_invalid_utf8(text); bad != text.size())
    throw Error({.what = "the text is not UTF-8",
                 .where = fmt::format("{} at byte {}", path, bad),
                 .got = fmt::format("byte 0x{:02x}", static_cast<unsigned char>(text[bad])),
                 .remedy = "convert it, for example with iconv -t UTF-8"});
  return text;
}

PerplexityProtocol find_protocol(const std::string& name) {
  for (const PerplexityProtocol protocol : all_perplexity_protocols())
    if (name_of(protocol) == name) return protocol;
  throw std::logic_error("the option lists a protocol that does not exist");
}

std::vector<std::string> protocol_names() {
  std::vector<std::string> out;
  for (const PerplexityProtocol protocol : all_perplexity_protocols()) out.emplace_back(name_of(protocol));
  return out;
}

Json to_json(const Perplexity& p) {
  return {{"perplexity", p.perplexity}, {"perplexity_stderr", p.perplexity_stderr},
          {"tokens", p.tokens},         {"protocol", name_of(p.protocol)},
          {"context", p.context},       {"stride", p.stride},
          {"windows", p.windows}};
}

std::string to_text(const Perplexity& p) {
  std::string windows = fmt::format("{} windows of {}", p.windows, p.context);
  if (p.stride != p.context) windows += fmt::format(" every {}", p.stride);
  return fmt::format("perplexity {:.4f} ± {:.4f}  ({} tokens scored in {}, protocol {})\n", p.perplexity,
                     p.perplexity_stderr, p.tokens, windows, name_of(p.protocol));
}

}  // namespace

int eval_command(Session& session, std::span<const std::string> arguments) {
  std::string model_path, text_path, protocol = "hf";
  std::optional<double> max_ppl;
  PerplexityOptions how;
  Options options({.command = "eval",
                   .summary = "Measures how well a model predicts a text: perplexity with its standard error.",
                   .example = "pare eval demo_model --ppl demo_model/eval.txt"});
  options.add({.names = "MODEL", .target = &model_path, .help = "HF directory or .gguf file", .required = true})
      .add({.names = "--ppl", .value = "FILE", .target = &text_path, .help = "the text, UTF-8", .required = true})
      .add({.names = "--protocol",
            .value = "NAME",
            .target = &protocol,
            .help = "hf: windows every --stride tokens, as transformers' documentation (default); "
                    "gptq: mean of window means, as the GPTQ paper; "
                    "llama.cpp: as llama-perplexity, second halves of windows",
            .choices = protocol_names()})
      .add({.names = "-c,--context",
            .value = "N",
            .target = &how.context,
            .help = "tokens per window (default: the model's context, at most 2048; llama.cpp 512)",
            .lowest = 0})
      .add({.names = "--stride",
            .value = "N",
            .target = &how.stride,
            .help = "hf: tokens between windows (default: the context)",
            .lowest = 0})
      .add({.names = "--max-tokens",
            .value = "N",
            .target = &how.max_tokens,
            .help = "use only the first tokens of the text",
            .lowest = 0})
      .add({.names = "--max-ppl",
            .value = "X",
            .target = &max_ppl,
            .help = "a gate: exit code 5 when the perplexity is higher"});
  if (!parse_command(options, session, arguments)) return 0;

  how.protocol = find_protocol(protocol);
  const std::string text = read_evaluation_text(text_path);
  const auto checkpoint = open_model(model_path, session);
  const auto tokenizer = load_tokenizer(*checkpoint);
  const Decoder model(checkpoint);
  const std::vector<int32_t> tokens = tokenizer->encode(text);
  const auto bos = tokenizer->adds_bos() ? tokenizer->bos() : std::nullopt;
  const Perplexity result = perplexity(model, tokens, bos, how, session.observer());

  Json json = to_json(result);
  const bool passed = !max_ppl || result.perplexity <= *max_ppl;
  const ErrorInfo gate{.what = "the perplexity is above the gate",
                       .where = "--max-ppl",
                       .expected = max_ppl ? fmt::format("at most {}", *max_ppl) : "",
                       .got = fmt::format("{:.4f}", result.perplexity),
                       .remedy = "take a recipe with more bits per weight",
                       .code = ExitCode::quality_gate};
  if (!passed) json.update(error_json(gate));
  session.result(json, to_text(result));
  if (!passed) session.error(Error(gate).what());
  return static_cast<int>(passed ? ExitCode::done : gate.code);
}

}  // namespace pare::cli
