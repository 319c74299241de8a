#include "common/share.h"

#include <catch2/catch.hpp>

namespace dsmoe {

TEST_CASE("parse_share: a percentage and a fraction are the same share") {
  CHECK(parse_share("1%") == 0.01);
  CHECK(parse_share("0.01") == 0.01);
  CHECK(parse_share("0.5 %") == 0.005);
  CHECK(parse_share("150%") == 1.5);
  CHECK(parse_share("0") == 0.0);
  CHECK(parse_share("1e-3") == 0.001);
}

TEST_CASE("parse_share: anything else is no share") {
  for (const auto* text :
       {"", "%", " %", "1 percent", "-1%", "-0.1", "nan", "inf", "1%%", "1  %", "x"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_share(text));
  }
}

}  // namespace dsmoe
