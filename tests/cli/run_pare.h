// Runs the built program as a user does: its own process, its own standard output and standard error.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "pare/base/json.h"
#include "pare/base/mapped_file.h"
#include "pare/base/output.h"
#include "tests/support/golden.h"

namespace pare::test {

struct Outcome {
  int code = -1;    // exit code, or 128 + the signal
  std::string out;  // standard output
  std::string err;
  Json json() const { return parse_json(out, "standard output"); }  // throws unless it is one JSON value
};

class RunningPare {
 public:
  explicit RunningPare(std::vector<std::string> arguments, const std::string& output = "") {
    out_ = output.empty() ? (folder_ / "out").string() : output;
    arguments.insert(arguments.begin(), PARE_BINARY);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    child_ = ::fork();
    if (child_ == 0) {
      redirect(out_, STDOUT_FILENO);
      redirect(folder_ / "err", STDERR_FILENO);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
  }
  std::string err() const { return read(folder_ / "err"); }
  void send(int signal) const { ::kill(child_, signal); }
  // False when the text has not come after half a minute.
  bool wait_for_err(const std::string& text) const { return wait_for(folder_ / "err", text); }
  bool wait_for_out(const std::string& text) const { return wait_for(out_, text); }
  Outcome wait() {
    int status = 0;
    ::waitpid(child_, &status, 0);
    return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
            .out = out_.starts_with("/dev/") ? "" : read(out_),
            .err = err()};
  }

 private:
  static void redirect(const std::filesystem::path& path, int to) {
    ::dup2(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600), to);
  }
  static bool wait_for(const std::filesystem::path& path, const std::string& text) {
    for (int i = 0; i < 3000; ++i) {
      if (read(path).find(text) != std::string::npos) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  static std::string read(const std::filesystem::path& path) {
    return std::filesystem::exists(path) ? read_text_file(path) : "";
  }
  TemporaryDirectory folder_;
  std::string out_;
  pid_t child_ = -1;
};

inline Outcome pare(std::vector<std::string> arguments) { return RunningPare(std::move(arguments)).wait(); }

// The beginning of the demo model's held-out text, as a file.
inline std::string short_text(const TemporaryDirectory& folder, size_t characters = 3000) {
  const std::string text = read_text_file(demo_model() / "eval.txt");
  const auto path = folder / "text.txt";
  write_file(path, text.substr(0, characters));
  return path;
}

}  // namespace pare::test
