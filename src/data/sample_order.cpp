#include "data/sample_order.h"

#include <fmt/format.h>

#include "common/error.h"
#include "common/random_seed.h"

namespace dsmoe {
namespace {

constexpr int kRounds = 6;

}  // namespace

SampleOrder::SampleOrder(int64_t n_samples, uint64_t seed)
    : n_samples_(n_samples), seed_(seed), half_bits_(1) {
  if (n_samples < 1) {
    throw Error(fmt::format("sample order: expected at least 1 sample, got {}", n_samples));
  }
  while ((uint64_t{1} << (2 * half_bits_)) < static_cast<uint64_t>(n_samples)) ++half_bits_;
}

SamplePlace SampleOrder::at(int64_t position) const {
  const int64_t epoch = position / n_samples_;
  const uint64_t epoch_seed = derive_seed(seed_, "sample order", static_cast<uint64_t>(epoch));
  const auto index = static_cast<uint64_t>(position % n_samples_);
  return {epoch, static_cast<int64_t>(permute(index, epoch_seed))};
}

// A Feistel network permutes the next power of four; walking its cycle until the number falls below
// n_samples restricts the permutation to that range. The range is at most four times too large, so
// the walk is short.
uint64_t SampleOrder::permute(uint64_t index, uint64_t epoch_seed) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  do {
    uint64_t left = index >> half_bits_;
    uint64_t right = index & mask;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t mixed =
          mix_bits(epoch_seed + (right << 3) + static_cast<uint64_t>(round)) & mask;
      const uint64_t next = left ^ mixed;
      left = right;
      right = next;
    }
    index = (left << half_bits_) | right;
  } while (index >= static_cast<uint64_t>(n_samples_));
  return index;
}

}  // namespace dsmoe
