#include "common/random_seed.h"

#include <catch2/catch.hpp>
#include <set>

using namespace dsmoe;

TEST_CASE("mix_bits: gives the published first numbers of SplitMix64 from seed 1234567",
          "[common][seed]") {
  const uint64_t expected[] = {
      6457827717110365317ULL, 3203168211198807973ULL, 9817491932198370423ULL};
  uint64_t state = 1234567;
  for (const uint64_t number : expected) {
    REQUIRE(mix_bits(state) == number);
    state += 0x9e3779b97f4a7c15ULL;
  }
}

TEST_CASE("derive_seed: seeds of other runs, purposes and indices all differ", "[common][seed]") {
  std::set<uint64_t> seeds;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const char* purpose : {"", "init", "data", "dropout"}) {
      for (uint64_t index = 0; index < 20; ++index) seeds.insert(derive_seed(seed, purpose, index));
    }
  }
  REQUIRE(seeds.size() == 20 * 4 * 20);
  REQUIRE(derive_seed(1, "data", 2) == derive_seed(1, "data", 2));
}
