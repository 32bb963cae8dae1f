// What a long job tells whoever started it. Below cli/ nothing prints.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace pare {

struct Progress {
  std::string stage;   // "calibrate", "quantize", "write", "evaluate"
  std::string detail;  // the tensor or window just done
  int64_t done = 0, total = 0;
  double error = 0;   // relative output error or running perplexity, when there is one; else 0
  int64_t bytes = 0;  // worked through so far in this stage, where that means something
};
struct Observer {
  std::function<void(const Progress&)> progress;    // may be empty
  std::function<void(const std::string&)> warning;  // may be empty
  void report(const Progress& p) const {
    if (progress) progress(p);
  }
  void warn(const std::string& text) const {
    if (warning) warning(text);
  }
};

}  // namespace pare
