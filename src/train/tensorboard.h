#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/io.h"

namespace dsmoe {

/// Appends scalars to an events file that TensorBoard reads.
class TensorboardWriter {
 public:
  /// A new file in the directory at every start; TensorBoard joins them, and of the steps past
  /// first_step shows only those of the newest file. Throws RunError.
  TensorboardWriter(Io& io, const std::string& directory, int64_t first_step);
  ~TensorboardWriter();
  TensorboardWriter(const TensorboardWriter&) = delete;
  TensorboardWriter& operator=(const TensorboardWriter&) = delete;

  void add(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

 private:
  void write_event(const std::string& event);

  Io& io_;
  std::string path_;
  int fd_ = -1;
};

/// CRC-32C (Castagnoli).
uint32_t crc32c(const std::string& bytes);

}  // namespace dsmoe
