#include "distributed/agreement.h"

#include <fmt/format.h>

#include <sstream>

namespace dsmoe {
namespace {

// The first line in which two texts differ: expected, then got.
std::pair<std::string, std::string> first_difference(const std::string& a, const std::string& b) {
  std::istringstream lines_a(a);
  std::istringstream lines_b(b);
  std::string line_a;
  std::string line_b;
  while (true) {
    const bool more_a = static_cast<bool>(std::getline(lines_a, line_a));
    const bool more_b = static_cast<bool>(std::getline(lines_b, line_b));
    if (!more_a) line_a = "nothing";
    if (!more_b) line_b = "nothing";
    if (line_a != line_b || (!more_a && !more_b)) return {line_a, line_b};
  }
}

}  // namespace

void check_agreement(RankGroup& ranks, const Agreement& fields) {
  for (const auto& [name, value] : fields) {
    const auto values = ranks.all_gather(value, "comparing " + name);
    for (size_t rank = 1; rank < values.size(); ++rank) {
      if (values[rank] == values[0]) continue;
      const auto [expected, got] = first_difference(values[0], values[rank]);
      throw Error(fmt::format(
          "ranks: expected the same {} on every rank, got '{}' on rank 0 and '{}' on rank {}",
          name,
          expected,
          got,
          rank));
    }
  }
}

}  // namespace dsmoe
