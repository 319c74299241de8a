#include "common/thousands.h"

#include <fmt/format.h>

#include <cstddef>

namespace dsmoe {

std::string group_thousands(double value) {
  const auto digits = fmt::format("{:.0f}", value);
  std::string grouped;
  for (size_t i = 0; i < digits.size(); ++i) {
    const size_t left = digits.size() - i;
    if (i > 0 && left % 3 == 0 && digits[i - 1] != '-') grouped += ',';
    grouped += digits[i];
  }
  return grouped;
}

}  // namespace dsmoe
