#pragma once

#include <cstdint>
#include <string_view>

namespace dsmoe {

/// One round of the SplitMix64 mixer: a bijection of 64-bit numbers with good avalanche.
uint64_t mix_bits(uint64_t value);

/// Derives the seed of one purpose from the run's seed. It is the same in every release and on
/// every machine; seeds of other purposes and indices are unrelated.
uint64_t derive_seed(uint64_t seed, std::string_view purpose, uint64_t index = 0);

}  // namespace dsmoe
