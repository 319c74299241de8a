#include "distributed/local_address.h"

#include <catch2/catch.hpp>

#include "common/error.h"

namespace dsmoe {

TEST_CASE("local_address_towards: loopback leads to loopback", "[distributed]") {
  CHECK(local_address_towards("127.0.0.1") == "127.0.0.1");
  CHECK(is_loopback(local_address_towards("localhost")));
}

TEST_CASE("local_address_towards: a host that cannot be found is named", "[distributed]") {
  REQUIRE_THROWS_WITH(local_address_towards("no such host"), Catch::Contains("'no such host'"));
  REQUIRE_THROWS_AS(local_address_towards(""), Error);
}

TEST_CASE("is_loopback: of both families", "[distributed]") {
  CHECK(is_loopback("127.0.1.1"));
  CHECK(is_loopback("::1"));
  CHECK_FALSE(is_loopback("10.0.0.1"));
  CHECK_FALSE(is_loopback("fe80::127"));
}

}  // namespace dsmoe
