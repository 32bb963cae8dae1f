// The table of commands. To add one: write a function `int my_command(Session&, std::span<const std::string>)` in its
// own file, declare it here, add a row to kCommands in main.cpp and the file to CMakeLists.txt. The function fills an
// Options table, calls parse_command, calls one public function below cli/, and hands the result to Session::result:
//
//   int eval_command(Session& session, std::span<const std::string> arguments) {
//     std::string model;
//     Options options({.command = "eval", .summary = "…", .example = "pare eval demo_model --ppl text.txt"});
//     options.add({.names = "MODEL", .target = &model, .help = "HF directory or .gguf file", .required = true});
//     if (!parse_command(options, session, arguments)) return 0;  // --help was printed
//     …
//     session.result(json, text);
//     return 0;
//   }
//
// Errors are thrown; main prints them, as JSON with --json, and turns them into the exit code.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "pare/cli/common.h"

namespace pare::cli {

struct Command {
  std::string_view name;
  int (*run)(Session& session, std::span<const std::string> arguments);  // exit code
  std::string_view summary;
};

// Adds the common options, prints the help where it is asked for (and returns false), parses, sets the threads.
bool parse_command(Options& options, Session& session, std::span<const std::string> arguments);

int inspect_command(Session& session, std::span<const std::string> arguments);
int convert_command(Session& session, std::span<const std::string> arguments);
int merge_lora_command(Session& session, std::span<const std::string> arguments);
int diff_command(Session& session, std::span<const std::string> arguments);
int eval_command(Session& session, std::span<const std::string> arguments);
int run_command(Session& session, std::span<const std::string> arguments);

// quantize_command.cpp
int plan_command(Session& session, std::span<const std::string> arguments);
int quantize_command(Session& session, std::span<const std::string> arguments);
int recipes_command(Session& session, std::span<const std::string> arguments);

}  // namespace pare::cli
