// pare: a table of commands, each a thin skin over one public function. See commands.h.
#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "pare/base/interrupt.h"
#include "pare/cli/commands.h"
#include "pare/report/table.h"

namespace pare::cli {
namespace {

constexpr Command kCommands[] = {
    {"inspect", inspect_command, "show what a checkpoint holds: architecture, tensors, bits per weight"},
    {"plan", plan_command, "what quantizing would do: grids, fallbacks, exact size, memory, time"},
    {"quantize", quantize_command, "choose codes for the weights and write a quantized checkpoint"},
    {"recipes", recipes_command, "list the named recipes"},
    {"convert", convert_command, "turn a checkpoint into another format, without loss where that can be"},
    {"merge-lora", merge_lora_command, "fold a PEFT adapter into the weights of its base"},
    {"diff", diff_command, "compare the weights of two checkpoints, tensor by tensor"},
    {"eval", eval_command, "measure how well a model predicts a text (perplexity)"},
    {"run", run_command, "continue a text"},
};

std::string overview() {
  Table table{.columns = {{""}, {""}, {""}}, .rows = {}};
  for (const Command& command : kCommands)
    table.rows.push_back({"", std::string(command.name), std::string(command.summary)});
  return "example: pare eval demo_model --ppl demo_model/eval.txt\n"
         "pare takes a language model to low-bit checkpoint formats, runs it, and measures what was lost.\n\n" +
         to_text(table) +
         "\nMODEL is a Hugging Face directory or a .gguf file. 'pare COMMAND --help' explains a command.\n";
}

[[noreturn]] void refuse_command(const std::string& name) {
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.emplace_back(command.name);
  const auto meant = closest(name, names);
  throw Error({.what = name.starts_with('-') ? "the command comes before its options" : "unknown command",
               .where = name,
               .remedy = meant ? fmt::format("did you mean '{}'? 'pare' lists the commands", *meant)
                               : "'pare' lists the commands",
               .code = ExitCode::usage});
}

int run(Session& session, std::span<const std::string> arguments) {
  const std::string first = arguments.empty() ? "--help" : arguments[0];
  if (first == "--help" || first == "-h" || first == "help") {
    // "pare help eval" is "pare eval --help".
    if (arguments.size() > 1) return run(session, std::vector<std::string>{arguments[1], "--help"});
    write_stdout(overview());
    return 0;
  }
  if (first == "--version") {
    write_stdout(fmt::format("pare {}\n", PARE_VERSION));
    return 0;
  }
  const auto command = std::ranges::find(kCommands, std::string_view(first), &Command::name);
  if (command == std::end(kCommands)) refuse_command(first);
  return command->run(session, arguments.subspan(1));
}

// Options may be unparsed when the error comes from parsing them.
bool wants_json(const Session& session) {
  const auto& words = session.command_line;
  return session.json || std::ranges::find(words, "--json") != words.end();
}

int fail(Session& session, const ErrorInfo& info) {
  session.error(Error(info).what());
  if (wants_json(session)) {
    try {
      write_stdout(error_json(info).dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    } catch (const Error& e) {
      session.error(e.what());
    }
  }
  return static_cast<int>(info.code);
}

int main_with_errors(std::span<const std::string> arguments) {
  Session session;
  session.command_line.assign(arguments.begin(), arguments.end());
  try {
    return run(session, arguments);
  } catch (const Error& e) {
    return fail(session, e.info());
  } catch (const std::bad_alloc&) {
    return fail(session, {.what = "not enough memory",
                          .remedy = "close other programs, or use a smaller model or context",
                          .code = ExitCode::no_room});
  } catch (const std::exception& e) {
    return fail(session, {.what = fmt::format("something that must not happen has happened: {}", e.what()),
                          .remedy = "this is a fault of pare: please report it with the command line",
                          .code = ExitCode::internal});
  }
}

}  // namespace
}  // namespace pare::cli

int main(int argc, char** argv) {
  pare::catch_interrupts();
  return pare::cli::main_with_errors(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
}
