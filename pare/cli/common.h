// What the commands share: where results and messages go, progress, and opening the tokenizer of a checkpoint.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "pare/base/error.h"
#include "pare/base/json.h"
#include "pare/base/progress.h"
#include "pare/cli/options.h"
#include "pare/container/checkpoint.h"
#include "pare/tokenizer/tokenizer.h"

namespace pare::cli {

class ProgressPrinter;

// One run of one command: the options that every command has, and its outputs. Results go to standard output,
// everything else to standard error.
class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Options that every command has, filled by parsing.
  bool json = false;
  bool quiet = false;
  std::string log = "text";  // or "json"
  std::string report;        // file; empty: none
  int64_t threads = 0;
  std::vector<std::string> command_line;  // as given, for reports

  // To hand to long jobs: progress and warnings to standard error, in the form that was asked for.
  Observer observer();
  // A remark for the reader (not with --quiet).
  void message(const std::string& text);
  void warning(const std::string& text);
  void error(const std::string& text);

  // The result of the command, once: `text` to standard output, or `object` with --json; `object` also to --report.
  void result(const Json& object, const std::string& text);
  // Parts of a result that is printed while it grows (generated text); nothing with --json.
  void stream(std::string_view text);
  void end_progress();  // leaves the terminal's progress line

 private:
  std::unique_ptr<ProgressPrinter> progress_;
};

// Adds --json, --report, --threads, --log and --quiet to a command's own options.
void add_common_options(Options& options, Session& session);

// Opens a model and warns of what the reader put up with.
std::shared_ptr<const Checkpoint> open_model(const std::string& path, Session& session);

// The tokenizer that a model brings: files of its directory, or the vocabulary inside a GGUF file.
std::shared_ptr<const Tokenizer> load_tokenizer(const Checkpoint& checkpoint);

// Throws Error when `path` is one of the model's own weight files.
void refuse_overwriting_model(const Checkpoint& checkpoint, const std::string& path, const std::string& option);

// {"error": {…}} as design/cli.md has it; "code" is the exit code.
Json error_json(const ErrorInfo& info);

// Writes to standard output; throws Error (no_room) when that fails.
void write_stdout(std::string_view text);

}  // namespace pare::cli
