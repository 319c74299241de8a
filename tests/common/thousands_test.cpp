#include "common/thousands.h"

#include <catch2/catch.hpp>

#include "common/machine.h"

namespace dsmoe {

TEST_CASE("group_thousands: groups the digits of whole numbers", "[common]") {
  CHECK(group_thousands(0) == "0");
  CHECK(group_thousands(999) == "999");
  CHECK(group_thousands(1000) == "1,000");
  CHECK(group_thousands(1751744.4) == "1,751,744");
  CHECK(group_thousands(-123456) == "-123,456");
}

TEST_CASE("cpu_model: names the CPU without the key in front", "[common]") {
  CHECK_FALSE(cpu_model().empty());
  CHECK(cpu_model().find(':') == std::string::npos);
  CHECK(cpu_model().front() != ' ');
}

TEST_CASE("name_of: every instruction set has its own name", "[common]") {
  CHECK(name_of(CpuIsa::kAvx512Bf16) == "AVX512-BF16");
  CHECK(name_of(CpuIsa::kAvx2) == "AVX2");
}

}  // namespace dsmoe
