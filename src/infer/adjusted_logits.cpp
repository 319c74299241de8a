#include "infer/adjusted_logits.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr double kExcluded = -std::numeric_limits<double>::infinity();

void check_finite(std::span<const float> logits) {
  constexpr uint32_t kExponent = 0x7F800000;  // all of it: Inf or NaN
  uint32_t n_bad = 0;
  for (const float logit : logits) {
    n_bad += (std::bit_cast<uint32_t>(logit) & kExponent) == kExponent ? 1 : 0;
  }
  if (n_bad > 0) throw RunError("generate: expected finite logits, got a NaN or Inf");
}

float greatest_of(std::span<const float> values) {
  float greatest = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : greatest)
  for (size_t i = 0; i < values.size(); ++i) {
    greatest = values[i] > greatest ? values[i] : greatest;
  }
  return greatest;
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
  greatest_ = find_greatest();
  if (greatest_ == kExcluded) {
    throw RunError("generate: expected a vocabulary with a token to draw, got none");
  }
}

double AdjustedLogits::find_greatest() const {
  double greatest = kExcluded;
  size_t begin = 0;  // of the unchanged logits before the next change
  for (const auto& change : changes_) {
    const auto id = static_cast<size_t>(change.id);
    greatest = std::max<double>(greatest, greatest_of(logits_.subspan(begin, id - begin)));
    greatest = std::max(greatest, change.logit);
    begin = id + 1;
  }
  return std::max<double>(greatest, greatest_of(logits_.subspan(begin)));
}

int32_t AdjustedLogits::first_greatest() const {
  auto change = changes_.begin();
  for (size_t i = 0; i < logits_.size(); ++i) {
    const bool is_changed = change != changes_.end() && static_cast<size_t>(change->id) == i;
    const double logit = is_changed ? (change++)->logit : logits_[i];
    if (logit == greatest_) return static_cast<int32_t>(i);
  }
  return -1;
}

double AdjustedLogits::at(int32_t id) const {
  const auto change = std::lower_bound(changes_.begin(), changes_.end(), Change{id, 0}, is_lower);
  const bool is_changed = change != changes_.end() && change->id == id;
  return is_changed ? change->logit : double{logits_[static_cast<size_t>(id)]};
}

void AdjustedLogits::for_each_block(
    const std::function<void(size_t begin, std::span<const float> block)>& use) const {
  std::array<float, kBlock> copy;
  auto change = changes_.begin();
  for (size_t begin = 0; begin < logits_.size(); begin += kBlock) {
    const auto block = logits_.subspan(begin, std::min(kBlock, logits_.size() - begin));
    const auto is_within = [&] {
      return change != changes_.end() && static_cast<size_t>(change->id) < begin + block.size();
    };
    if (!is_within()) {
      use(begin, block);
      continue;
    }
    std::copy(block.begin(), block.end(), copy.begin());
    for (; is_within(); ++change) {
      copy[static_cast<size_t>(change->id) - begin] = -std::numeric_limits<float>::infinity();
    }
    use(begin, {copy.data(), block.size()});
  }
}

}  // namespace dsmoe
