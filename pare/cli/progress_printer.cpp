#include "pare/cli/progress_printer.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "pare/base/json.h"
#include "pare/report/table.h"
#include "pare/report/units.h"

namespace pare::cli {
namespace {

int64_t terminal_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

void write_line(const Json& object) {
  fmt::print(stderr, "{}\n", object.dump(-1, ' ', false, Json::error_handler_t::replace));
}

double share(const Progress& p) { return p.total > 0 ? static_cast<double>(p.done) / static_cast<double>(p.total) : 0; }

double seconds_left(const Progress& p, double seconds) {
  return p.done > 0 ? seconds * static_cast<double>(p.total - p.done) / static_cast<double>(p.done) : 0;
}

// What Progress::error means in this stage.
const char* error_name(const Progress& p) { return p.stage == "evaluate" ? "perplexity" : "error"; }

}  // namespace

std::string progress_text(const Progress& p, double seconds) {
  std::string out = p.stage;
  if (p.total > 0) out += fmt::format("  {}/{}  {:.0f}%", p.done, p.total, 100 * share(p));
  if (p.bytes > 0) out += "  " + human_bytes(p.bytes);
  if (p.error > 0) out += fmt::format("  {} {:.4g}", error_name(p), p.error);
  if (seconds > 0 && p.done > 0) {
    out += p.bytes > 0
               ? fmt::format("  {}/s", human_bytes(static_cast<int64_t>(static_cast<double>(p.bytes) / seconds)))
               : fmt::format("  {:.3g}/s", static_cast<double>(p.done) / seconds);
    if (p.done < p.total) out += fmt::format("  {} left", human_seconds(seconds_left(p, seconds)));
  }
  if (!p.detail.empty()) out += "  " + p.detail;
  return out;
}

void print_message(const std::string& kind, const std::string& text, bool json) {
  if (json)
    write_line({{"event", kind}, {"text", text}});
  else
    fmt::print(stderr, "{}{}\n", kind == "message" ? "" : kind + ": ", text);
}

ProgressPrinter::ProgressPrinter(bool json, bool quiet)
    : json_(json), quiet_(quiet), terminal_(!json && ::isatty(STDERR_FILENO)) {}

void ProgressPrinter::show(const Progress& p) {
  if (quiet_) return;
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  const bool begins = p.stage != stage_ || p.done < last_done_;
  if (begins) {
    if (line_open_) fmt::print(stderr, "\n");
    line_open_ = false;
    stage_ = p.stage;
    stage_began_ = now;
    first_done_ = p.done;
  }
  last_done_ = p.done;
  const bool ends = p.total > 0 && p.done >= p.total;
  const auto pause = std::chrono::milliseconds(terminal_ ? 100 : json_ ? 1000 : 10000);
  if (!begins && !ends && now - printed_ < pause) return;
  printed_ = now;
  // The clock starts with the first report, when first_done_ were done already: they took their share, too.
  double seconds = std::chrono::duration<double>(now - stage_began_).count();
  if (p.done > first_done_) seconds *= static_cast<double>(p.done) / static_cast<double>(p.done - first_done_);
  json_ ? print_json(p, seconds) : print_line(p, seconds);
}

void ProgressPrinter::end() {
  const std::lock_guard lock(mutex_);
  if (line_open_) fmt::print(stderr, "\n");
  line_open_ = false;
}

void ProgressPrinter::print_line(const Progress& p, double seconds) {
  const std::string text = progress_text(p, seconds);
  if (!terminal_) {
    fmt::print(stderr, "{}\n", text);
    return;
  }
  fmt::print(stderr, "\r{}\x1b[K", shortened(text, terminal_width() - 1));  // clears what a longer line left
  std::fflush(stderr);
  line_open_ = true;
}

void ProgressPrinter::print_json(const Progress& p, double seconds) {
  Json line = {{"event", "progress"}, {"stage", p.stage}, {"detail", p.detail}, {"done", p.done}, {"total", p.total}};
  if (p.bytes > 0) line["bytes"] = p.bytes;
  if (p.error > 0) line[error_name(p)] = p.error;
  line["seconds"] = seconds;
  if (p.done > 0 && p.total > 0) line["seconds_left"] = seconds_left(p, seconds);
  write_line(line);
}

}  // namespace pare::cli
