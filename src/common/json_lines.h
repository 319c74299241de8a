#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "common/io.h"

namespace dsmoe {

/// Appends to a file of one JSON object per line.
class JsonLines {
 public:
  /// Throws RunError.
  JsonLines(Io& io, const std::string& path);
  ~JsonLines();
  JsonLines(const JsonLines&) = delete;
  JsonLines& operator=(const JsonLines&) = delete;

  /// Numbers in full precision; NaN and Inf become null. Throws RunError.
  void add(const nlohmann::ordered_json& object);

 private:
  Io& io_;
  std::string path_;
  int fd_;
};

/// Rewrites a file of JSON lines: keeps the lines with `step` at most `step`, drops a torn last
/// line. Does nothing if there is no file. Throws RunError.
void keep_lines_up_to_step(Io& io, const std::string& path, int64_t step);

}  // namespace dsmoe
