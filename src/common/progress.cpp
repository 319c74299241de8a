#include "common/progress.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/printable.h"

namespace dsmoe {
namespace {

constexpr int kBarWidth = 30;
constexpr std::chrono::milliseconds kInterval{100};

}  // namespace

std::string progress_line(const std::string& label,
                          int64_t done_bytes,
                          int64_t total_bytes,
                          double seconds) {
  const double share =
      total_bytes > 0
          ? std::clamp(static_cast<double>(done_bytes) / static_cast<double>(total_bytes), 0.0, 1.0)
          : 1.0;
  const auto n_filled = static_cast<int>(share * kBarWidth);
  std::string line = fmt::format("{} [{}{}] {:3.0f} %",
                                 label,
                                 std::string(static_cast<size_t>(n_filled), '#'),
                                 std::string(static_cast<size_t>(kBarWidth - n_filled), ' '),
                                 100 * share);
  if (done_bytes > 0 && seconds > 0) {
    const double rate = static_cast<double>(done_bytes) / seconds;
    const auto left = static_cast<int64_t>(
        static_cast<double>(std::max<int64_t>(total_bytes - done_bytes, 0)) / rate);
    line += fmt::format("  {:.1f} MB/s  eta {}:{:02}", rate / 1e6, left / 60, left % 60);
  }
  return line;
}

ProgressBar::ProgressBar(const std::string& label, std::FILE* terminal)
    : label_(printable_line(label)), terminal_(terminal), start_(Clock::now()), next_(start_) {}

ProgressBar::~ProgressBar() {
  if (drawn_) std::fputc('\n', terminal_);
}

void ProgressBar::show(int64_t done_bytes, int64_t total_bytes) {
  const auto now = Clock::now();
  if (now < next_ && done_bytes < total_bytes) return;
  next_ = now + kInterval;
  drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  // "\x1b[K" clears the rest of a longer line. On a closed terminal fputs fails silently;
  // fmt::print would throw.
  const auto line =
      fmt::format("\r{}\x1b[K", progress_line(label_, done_bytes, total_bytes, seconds));
  std::fputs(line.c_str(), terminal_);
  std::fflush(terminal_);
}

}  // namespace dsmoe
