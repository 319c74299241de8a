#include "common/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "common/printable.h"

namespace dsmoe {
namespace {

constexpr int kBarWidth = 30;
constexpr std::chrono::milliseconds kInterval{100};

}  // namespace

std::string progress_line(const std::string& label,
                          int64_t done,
                          int64_t total,
                          double seconds,
                          ProgressUnit unit) {
  const double share =
      total > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0)
                : 1.0;
  const auto n_filled = static_cast<int>(share * kBarWidth);
  std::string line = fmt::format("{} [{}{}] {:3.0f} %",
                                 label,
                                 std::string(static_cast<size_t>(n_filled), '#'),
                                 std::string(static_cast<size_t>(kBarWidth - n_filled), ' '),
                                 100 * share);
  if (done > 0 && seconds > 0) {
    const double rate = static_cast<double>(done) / seconds;
    const auto left =
        static_cast<int64_t>(static_cast<double>(std::max<int64_t>(total - done, 0)) / rate);
    if (unit == ProgressUnit::kBytes) line += fmt::format("  {:.1f} MB/s", rate / 1e6);
    line += fmt::format("  eta {}:{:02}", left / 60, left % 60);
  }
  return line;
}

ProgressBar::ProgressBar(const std::string& label, std::FILE* terminal, ProgressUnit unit)
    : label_(printable_line(label)),
      terminal_(terminal),
      unit_(unit),
      start_(Clock::now()),
      next_(start_) {}

ProgressBar::~ProgressBar() {
  if (drawn_) std::fputc('\n', terminal_);
}

void ProgressBar::show(int64_t done, int64_t total) {
  const auto now = Clock::now();
  if (now < next_ && done < total) return;
  next_ = now + kInterval;
  drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  // "\x1b[K" clears the rest of a longer line. On a closed terminal fputs fails silently;
  // fmt::print would throw.
  const auto line = fmt::format("\r{}\x1b[K", progress_line(label_, done, total, seconds, unit_));
  std::fputs(line.c_str(), terminal_);
  std::fflush(terminal_);
}

void ProgressBar::clear() {
  if (!drawn_) return;
  drawn_ = false;
  std::fputs("\r\x1b[K", terminal_);
  std::fflush(terminal_);
}

std::unique_ptr<ProgressBar> progress_on_terminal(const std::string& label) {
  if (isatty(STDERR_FILENO) == 0) return nullptr;
  return std::make_unique<ProgressBar>(label, stderr, ProgressUnit::kWork);
}

}  // namespace dsmoe
