#include "pare/base/interrupt.h"

#include <csignal>

#include "pare/base/error.h"

namespace pare {
namespace {

volatile std::sig_atomic_t g_signal = 0;

void on_signal(int number) {
  g_signal = number;
  std::signal(number, SIG_DFL);
}

}  // namespace

void catch_interrupts() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

bool interrupted() { return g_signal != 0; }

void check_interrupt() {
  if (!interrupted()) return;
  throw Error({.what = g_signal == SIGTERM ? "stopped by SIGTERM" : "interrupted",
               .remedy = "nothing was left behind; run the same command again",
               .code = ExitCode::interrupted});
}

void clear_interrupt() { g_signal = 0; }

}  // namespace pare
