// Progress on standard error: one line rewritten in place on a terminal, a line now and then when piped, a JSON object
// per line on request.
#pragma once

#include <chrono>
#include <mutex>
#include <string>

#include "pare/base/progress.h"

namespace pare::cli {

class ProgressPrinter {
 public:
  ProgressPrinter(bool json, bool quiet);
  void show(const Progress& progress);  // from any thread
  void end();                           // leaves the line that is being rewritten

 private:
  using Clock = std::chrono::steady_clock;
  void print_line(const Progress& progress, double seconds);
  void print_json(const Progress& progress, double seconds);

  const bool json_, quiet_, terminal_;
  std::mutex mutex_;
  std::string stage_;
  Clock::time_point stage_began_, printed_;
  int64_t first_done_ = 0, last_done_ = 0;  // of this stage
  bool line_open_ = false;
};

// "evaluate  12/40  30%  1.20 GB  perplexity 51.2  3.4/s  0:12 left  window 12"; `seconds` since the stage began.
std::string progress_text(const Progress& progress, double seconds);

// One message on standard error: "warning: …", or {"event": "warning", "text": …}. `kind` is message, warning or error.
void print_message(const std::string& kind, const std::string& text, bool json);

}  // namespace pare::cli
