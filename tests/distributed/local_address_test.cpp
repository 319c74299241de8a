#include "distributed/local_address.h"

#include <catch2/catch.hpp>

#include "common/error.h"

namespace dsmoe {

TEST_CASE("local_address_towards: returns loopback for loopback", "[distributed]") {
  CHECK(local_address_towards("127.0.0.1") == "127.0.0.1");
  CHECK(is_loopback(local_address_towards("localhost")));
}

TEST_CASE("local_address_towards: the error names a host that cannot be found", "[distributed]") {
  REQUIRE_THROWS_WITH(local_address_towards("no such host"), Catch::Contains("'no such host'"));
  REQUIRE_THROWS_AS(local_address_towards(""), Error);
}

TEST_CASE("is_loopback: recognizes IPv4 and IPv6", "[distributed]") {
  CHECK(is_loopback("127.0.1.1"));
  CHECK(is_loopback("::1"));
  CHECK_FALSE(is_loopback("10.0.0.1"));
  CHECK_FALSE(is_loopback("fe80::127"));
}

}  // namespace dsmoe
