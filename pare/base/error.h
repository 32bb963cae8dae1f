// The one exception of Pare. Bad input or a lacking machine is told to the user in five parts; broken promises inside
// our own code are `assert`s. Nothing below cli/ prints or exits.
#pragma once

#include <exception>
#include <string>

namespace pare {

enum class ExitCode {
  done = 0,
  usage = 2,
  bad_input = 3,     // invalid or unsupported
  no_room = 4,       // not enough memory or disk
  quality_gate = 5,  // --max-kld, --max-ppl
  interrupted = 6,
  internal = 70,  // our bug
};

struct ErrorInfo {
  std::string what = {};      // one sentence, lower case, no full stop
  std::string where = {};     // file, tensor, offset, option
  std::string expected = {};  // may be empty, as may the following
  std::string got = {};
  std::string remedy = {};  // what to do
  ExitCode code = ExitCode::bad_input;
};

class Error : public std::exception {
 public:
  explicit Error(ErrorInfo info);
  const char* what() const noexcept override { return text_.c_str(); }  // "where: what; expected …, got …; remedy"
  const ErrorInfo& info() const { return info_; }
  ExitCode code() const { return info_.code; }

 private:
  ErrorInfo info_;
  std::string text_;
};

}  // namespace pare
