#include "pare/cli/common.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "pare/base/output.h"
#include "pare/base/threads.h"
#include "pare/cli/commands.h"
#include "pare/cli/progress_printer.h"

namespace pare::cli {
namespace fs = std::filesystem;

namespace {

// Text that may hold bytes of anybody's file names or tokens never makes the output invalid JSON.
std::string dumped(const Json& object, int indent) {
  return object.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

void write_stdout(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
  throw Error({.what = "the result cannot be written",
               .where = "standard output",
               .got = std::strerror(errno),
               .remedy = "make room or send the output elsewhere",
               .code = ExitCode::no_room});
}

Session::Session() = default;
Session::~Session() = default;

Observer Session::observer() {
  if (!progress_) progress_ = std::make_unique<ProgressPrinter>(log == "json", quiet);
  return {.progress = [this](const Progress& p) { progress_->show(p); },
          .warning = [this](const std::string& text) { warning(text); }};
}

void Session::end_progress() {
  if (progress_) progress_->end();
}

void Session::message(const std::string& text) {
  if (quiet) return;
  end_progress();
  print_message("message", text, log == "json");
}

void Session::warning(const std::string& text) {
  end_progress();
  print_message("warning", text, log == "json");
}

void Session::error(const std::string& text) {
  end_progress();
  print_message("error", text, log == "json");
}

void Session::result(const Json& object, const std::string& text) {
  end_progress();
  if (!report.empty()) write_file(report, dumped(object, 2) + "\n");
  write_stdout(json ? dumped(object, 2) + "\n" : text);
}

void Session::stream(std::string_view text) {
  if (!json) write_stdout(text);
}

void add_common_options(Options& options, Session& session) {
  options.add({.names = "--json", .target = &session.json})
      .add({.names = "--report", .value = "FILE", .target = &session.report})
      .add({.names = "--threads", .value = "N", .target = &session.threads, .lowest = 0})
      .add({.names = "--log", .value = "json", .target = &session.log, .choices = {"text", "json"}})
      .add({.names = "-q,--quiet", .target = &session.quiet})
      .note("")
      .note(
          "Every command: --json (the result as JSON on standard output), --report FILE (the same into a file), "
          "--threads N, --quiet, --log json (progress and messages as JSON lines on standard error).");
}

bool parse_command(Options& options, Session& session, std::span<const std::string> arguments) {
  add_common_options(options, session);
  for (const std::string& word : arguments) {
    if (word == "--") break;
    if (word == "--help" || word == "-h") {
      write_stdout(options.help());
      return false;
    }
  }
  options.parse(arguments);
  if (!session.report.empty()) check_output_path(session.report, true);
  set_threads(static_cast<int>(session.threads));
  return true;
}

std::shared_ptr<const Checkpoint> open_model(const std::string& path, Session& session) {
  auto checkpoint = Checkpoint::open(path);
  for (const std::string& text : checkpoint->warnings()) session.warning(text);
  return checkpoint;
}

std::shared_ptr<const Tokenizer> load_tokenizer(const Checkpoint& checkpoint) {
  if (checkpoint.format() == Format::gguf)
    return Tokenizer::from_metadata(checkpoint.metadata(), checkpoint.path().string());
  return Tokenizer::from_directory(checkpoint.path());
}

void refuse_overwriting_model(const Checkpoint& checkpoint, const std::string& path, const std::string& option) {
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    std::error_code ignored;
    if (fs::equivalent(tensor.file, path, ignored))
      throw Error({.what = "this would replace the model's own weights",
                   .where = option,
                   .got = path,
                   .remedy = "choose another name",
                   .code = ExitCode::usage});
  }
}

Json error_json(const ErrorInfo& info) {
  return {{"error",
           {{"code", static_cast<int>(info.code)},
            {"what", info.what},
            {"where", info.where},
            {"expected", info.expected},
            {"got", info.got},
            {"remedy", info.remedy}}}};
}

}  // namespace pare::cli
