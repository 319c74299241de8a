#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/step_metrics.h"

namespace dsmoe {

/// The log of training as a table: a heading, and one row per log interval. A row and the time in
/// front of it have at most 100 columns.
///
/// The terms of the loss come first and add up to the column `loss`, the total: each is shown as
/// weight times value. Behind a mutual-information term is its share of its bound. Then follow as
/// many other numbers as fit, the same ones in every row; metrics.jsonl holds all of them.
class LogTable {
 public:
  /// first  a step of the run: its terms and whether MFU and a device's memory are known
  LogTable(const StepMetrics& first, int64_t total_steps);

  std::string heading() const;
  std::string row(const StepMetrics& metrics) const;
  /// How to read the loss terms, in lines of at most 90 columns; empty for a language model without
  /// other terms.
  std::vector<std::string> legend() const;

 private:
  struct Column {
    std::string name;
    size_t width = 0;
    std::string (*text)(const StepMetrics& metrics, int64_t total_steps, const std::string& name);
  };

  int64_t total_steps_;
  std::vector<LossTerm> terms_;
  std::vector<Column> columns_;
};

/// Returns `1d 4h`, `3h 05m`, `12m 30s` or `45s`.
std::string format_duration(double seconds);

}  // namespace dsmoe
