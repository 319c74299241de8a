#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace dsmoe {

/// The line `label [####    ]  42 %  12.3 MB/s  eta 0:07` of a progress bar in bytes.
/// seconds  since the start
std::string progress_line(const std::string& label,
                          int64_t done_bytes,
                          int64_t total_bytes,
                          double seconds);

/// A progress bar on a terminal, drawn at most ten times a second; its destructor ends the line.
class ProgressBar {
 public:
  ProgressBar(const std::string& label, std::FILE* terminal);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(int64_t done_bytes, int64_t total_bytes);

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  std::FILE* terminal_;
  Clock::time_point start_;
  Clock::time_point next_;
  bool drawn_ = false;
};

}  // namespace dsmoe
