#include "infer/adjusted_logits.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr size_t kBlock = 8192;  // doubles: within the L2 cache

constexpr double kExcluded = -std::numeric_limits<double>::infinity();

void check_finite(std::span<const float> logits) {
  constexpr uint32_t kExponent = 0x7F800000;  // all of it: Inf or NaN
  uint32_t n_bad = 0;
  for (const float logit : logits) {
    n_bad += (std::bit_cast<uint32_t>(logit) & kExponent) == kExponent ? 1 : 0;
  }
  if (n_bad > 0) throw RunError("generate: expected finite logits, got a NaN or Inf");
}

// One maximum after another would wait for the one before it.
double greatest_of(std::span<const double> values) {
  constexpr size_t kLanes = 8;
  std::array<double, kLanes> greatest;
  greatest.fill(kExcluded);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) greatest[j] = std::max(greatest[j], values[i + j]);
  }
  for (; i < values.size(); ++i) greatest[0] = std::max(greatest[0], values[i]);
  return *std::max_element(greatest.begin(), greatest.end());
}

}  // namespace

AdjustedLogits::AdjustedLogits(std::span<const float> logits,
                               const ExcludedIds& excluded,
                               std::span<const int32_t> seen,
                               double penalty)
    : logits_(logits), greatest_(kExcluded) {
  check_finite(logits);
  if (excluded != nullptr) {
    for (const int32_t id : *excluded) changes_.push_back({id, kExcluded});
  }
  if (penalty != 1.0) {
    for (const int32_t id : seen) {
      const double logit = logits_[static_cast<size_t>(id)];
      changes_.push_back({id, logit > 0 ? logit / penalty : logit * penalty});
    }
    // Of several changes the first counts: exclusion.
    std::stable_sort(changes_.begin(), changes_.end(), is_lower);
    const auto end = std::unique(changes_.begin(),
                                 changes_.end(),
                                 [](const auto& a, const auto& b) { return a.id == b.id; });
    changes_.erase(end, changes_.end());
  }
  for_each_block([&](size_t begin, std::span<const double> block) {
    const double greatest = greatest_of(block);
    if (greatest <= greatest_) return;
    greatest_ = greatest;
    const auto first = std::find(block.begin(), block.end(), greatest);
    first_greatest_ = static_cast<int32_t>(begin + static_cast<size_t>(first - block.begin()));
  });
  if (greatest_ == kExcluded) {
    throw RunError("generate: expected a vocabulary with a token to draw, got none");
  }
}

double AdjustedLogits::at(int32_t id) const {
  const auto change = std::lower_bound(changes_.begin(), changes_.end(), Change{id, 0}, is_lower);
  const bool is_changed = change != changes_.end() && change->id == id;
  return is_changed ? change->logit : double{logits_[static_cast<size_t>(id)]};
}

void AdjustedLogits::for_each_block(
    const std::function<void(size_t begin, std::span<double> block)>& use) const {
  std::array<double, kBlock> block;
  auto change = changes_.begin();
  for (size_t begin = 0; begin < logits_.size(); begin += kBlock) {
    const size_t n = std::min(kBlock, logits_.size() - begin);
    for (size_t i = 0; i < n; ++i) block[i] = logits_[begin + i];
    for (; change != changes_.end() && static_cast<size_t>(change->id) < begin + n; ++change) {
      block[static_cast<size_t>(change->id) - begin] = change->logit;
    }
    use(begin, {block.data(), n});
  }
}

}  // namespace dsmoe
