#include "data/corpus_mix.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr double kOne = 4294967296.0;  // 2^32

// Returns the number of the first n samples of a node that go left: n * share, rounded to the
// nearest.
int64_t count_left(int64_t n, uint64_t share) {
  const auto product = static_cast<unsigned __int128>(n) * share + (uint64_t{1} << 31);
  return static_cast<int64_t>(product >> 32);
}

}  // namespace

CorpusMix::CorpusMix(const std::vector<double>& weights) {
  if (weights.empty()) throw Error("corpus mix: expected at least one corpus, got none");
  for (const double weight : weights) {
    if (!std::isfinite(weight) || weight <= 0) {
      throw Error(fmt::format("corpus mix: expected weights above 0, got {}", weight));
    }
  }
  root_ = add_node(weights, 0, weights.size());
}

int64_t CorpusMix::add_node(const std::vector<double>& weights, size_t begin, size_t end) {
  if (end - begin == 1) return -1 - static_cast<int64_t>(begin);
  const size_t middle = begin + (end - begin) / 2;
  const auto sum = [&](size_t from, size_t to) {
    return std::accumulate(weights.begin() + static_cast<ptrdiff_t>(from),
                           weights.begin() + static_cast<ptrdiff_t>(to),
                           0.0);
  };
  const double share = sum(begin, middle) / (sum(begin, middle) + sum(middle, end));
  const int64_t left = add_node(weights, begin, middle);
  const int64_t right = add_node(weights, middle, end);
  const double units = std::clamp(std::round(share * kOne), 1.0, kOne - 1.0);
  nodes_.push_back({static_cast<uint64_t>(units), left, right});
  return static_cast<int64_t>(nodes_.size()) - 1;
}

CorpusMix::Place CorpusMix::at(int64_t position) const {
  int64_t at = root_;
  while (at >= 0) {
    const Node& node = nodes_[static_cast<size_t>(at)];
    const int64_t before = count_left(position, node.left_share);
    const bool goes_left = count_left(position + 1, node.left_share) > before;
    position = goes_left ? before : position - before;
    at = goes_left ? node.left : node.right;
  }
  return {static_cast<size_t>(-1 - at), position};
}

}  // namespace dsmoe
