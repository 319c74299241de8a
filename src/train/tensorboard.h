#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/io.h"

namespace dsmoe {

/// Seconds since 1970, UTC.
using WallClock = std::function<double()>;
double system_seconds();

/// Appends to an events file that TensorBoard reads; it shows each directory as a run, and charts
/// equal names of several runs together.
class TensorboardWriter {
 public:
  /// A new file in the directory at every start; TensorBoard joins them, and of the steps past
  /// first_step shows only those of the newest file. Throws RunError.
  TensorboardWriter(Io& io,
                    const std::string& directory,
                    int64_t first_step,
                    WallClock clock = system_seconds);
  ~TensorboardWriter();
  TensorboardWriter(const TensorboardWriter&) = delete;
  TensorboardWriter& operator=(const TensorboardWriter&) = delete;

  void add(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);
  /// A text of the tab TEXT, Markdown.
  void add_text(int64_t step, const std::string& name, const std::string& markdown);
  /// A histogram with one bar per bin, as high as its value >= 0; bin i is the range [i, i + 1].
  void add_bars(int64_t step, const std::string& name, const std::vector<double>& values);

 private:
  void write_summary(int64_t step, const std::string& summary);
  void write_event(const std::string& event);

  Io& io_;
  WallClock clock_;
  std::string path_;
  int fd_ = -1;
};

/// CRC-32C (Castagnoli).
uint32_t crc32c(const std::string& bytes);

}  // namespace dsmoe
