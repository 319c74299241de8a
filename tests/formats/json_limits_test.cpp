#include "formats/json_limits.h"

#include <catch2/catch.hpp>

#include "common/error.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

std::string nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

}  // namespace

TEST_CASE("JSON of unknown origin: what is read and what is refused") {
  CHECK(parse_json(R"({"a": {"x": 1}, "b": {"x": 2}})", "f", 100)["b"]["x"] == 2);
  CHECK_NOTHROW(parse_json(nested(64), "f", 1000));
  CHECK_THROWS_WITH(parse_json(nested(66), "f", 1000), Contains("f: JSON is deeper than 64"));
  CHECK_THROWS_WITH(parse_json(R"({"a": 1, "a": 2})", "f", 100), Contains("key 'a' appears twice"));
  CHECK_THROWS_WITH(parse_json(R"([{"k": 1, "k": 2}])", "f", 100), Contains("key 'k' appears"));
  CHECK_THROWS_WITH(parse_json("{} x", "f", 100), Contains("f: not JSON"));
  CHECK_THROWS_WITH(parse_json("\"\xFF\"", "f", 100), Contains("f: not JSON"));
  CHECK_THROWS_WITH(parse_json("{\"\xFF\": 1}", "f", 100), Contains("f: not JSON"));
  CHECK_THROWS_WITH(parse_json("[1, 2]", "f", 5), Contains("at most 5 bytes"));
  CHECK_THROWS_AS(parse_json("", "f", 5), Error);
}

}  // namespace dsmoe
