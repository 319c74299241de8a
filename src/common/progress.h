#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

namespace dsmoe {

/// Quantity that a progress bar counts; only bytes have a rate that is worth showing.
enum class ProgressUnit { kBytes, kWork };

/// The line `label [####    ]  42 %  12.3 MB/s  eta 0:07` of a progress bar; for kWork without the
/// rate.
/// seconds  since the start
std::string progress_line(const std::string& label,
                          int64_t done,
                          int64_t total,
                          double seconds,
                          ProgressUnit unit = ProgressUnit::kBytes);

/// A progress bar on a terminal, drawn at most ten times a second; its destructor ends the line.
class ProgressBar {
 public:
  ProgressBar(const std::string& label,
              std::FILE* terminal,
              ProgressUnit unit = ProgressUnit::kBytes);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(int64_t done, int64_t total);
  /// Removes the line, so that a result can be printed in its place; the next show draws it again.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  std::FILE* terminal_;
  ProgressUnit unit_;
  Clock::time_point start_;
  Clock::time_point next_;
  bool drawn_ = false;
};

/// Returns a bar of work on standard error; null if that is no terminal, so that pipes and files
/// receive no progress.
std::unique_ptr<ProgressBar> progress_on_terminal(const std::string& label);

}  // namespace dsmoe
