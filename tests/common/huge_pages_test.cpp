#include "common/huge_pages.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>

#include "common/memory_bandwidth.h"

namespace dsmoe {

TEST_CASE("HugePages: memory is zeroed, writable to its end and aligned to a huge page",
          "[common]") {
  for (const int64_t size : {int64_t{1}, int64_t{5} << 20}) {
    const HugePages memory(size);
    CHECK(reinterpret_cast<uintptr_t>(memory.data()) % (2 << 20) == 0);
    CHECK(memory.data()[0] == std::byte{0});
    CHECK(memory.data()[size - 1] == std::byte{0});
    memory.data()[size - 1] = std::byte{7};
    CHECK(memory.data()[size - 1] == std::byte{7});
  }
}

TEST_CASE("measure_read_bandwidth: is positive when every word was read in every round",
          "[common]") {
  const double bytes_per_second = measure_read_bandwidth();
  CHECK(bytes_per_second > 0);  // 0 if the sum over all rounds differs from that of the words
  CHECK(std::isfinite(bytes_per_second));
  release_bandwidth_memory();
}

}  // namespace dsmoe
