#include "formats/json_limits.h"

#include <catch2/catch.hpp>

#include "common/error.h"
#include "formats/json_tables.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

std::string nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

}  // namespace

TEST_CASE("JSON of unknown origin: valid text is read, invalid text is refused") {
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

TEST_CASE("JSON of unknown origin: a text that is large in memory is refused before it is built") {
  const JsonLimits limits{.max_tree_bytes = 1000, .max_token_bytes = 50, .tables = {"a.t"}};
  const auto refuses = [&](const std::string& text, const std::string& why) {
    CHECK_THROWS_WITH(parse_json(text, "f", limits), Contains(why));
  };
  CHECK(
      parse_json(R"({"a": {"t": {"x": 1, "y": 2}, "u": [null, 0.5]}})", "f", limits)["a"].size() ==
      2);
  std::string empties = "[[]";
  for (int i = 0; i < 20; ++i) empties += ",[]";
  refuses(empties + "]", "f: JSON would take more than 1000 bytes");
  refuses("[\"" + std::string(60, 'x') + "\"]", "of more than 50 bytes");
  refuses("[" + std::string(60, '1') + "]", "of more than 50 bytes");
  // The rows of a table do not count, and can be nothing else.
  std::string rows = "[[\"a\", \"b\"]";
  for (int i = 0; i < 100; ++i) rows += ", \"a b\", [\"c\", 1.5]";
  CHECK_NOTHROW(parse_json("{\"a\": {\"t\": " + rows + "]}}", "f", limits));
  refuses("{\"t\": " + rows + "]}", "f: JSON would take");
  refuses(R"({"a": {"t": {"x": 1.5}}})", "f: 't': expected whole numbers");
  refuses(R"({"a": {"t": {"x": []}}})", "f: 't': expected whole numbers");
  refuses(R"({"a": {"t": [1]}})", "f: 't': expected texts or pairs");
  refuses(R"({"a": {"t": [["x"]]}})", "f: 't': expected texts or pairs");
  refuses(R"({"a": {"t": [["x", ["y"]]]}})", "f: 't': expected texts or pairs");
  refuses(R"({"a": {"t": [{}]}})", "f: 't': expected texts or pairs");
  // All values after a table count again.
  refuses("{\"a\": {\"t\": {}, \"u\": " + rows + "]}}", "f: JSON would take");
}

TEST_CASE("JSON tables: they are empty in the tree, and their reader visits all entries") {
  const std::string text =
      R"({"v": {"x": 9}, "a": {"t": {"x": 1, "y": 2, "x": 3}, "v": [0, {"x": 4}]}, )"
      R"("l": ["p q", ["r", "s"], ["u", 0.5]], "z": 1})";
  const JsonLimits limits{.tables = {"a.t", "l"}};
  CHECK(parse_json(text, "f", limits) ==
        nlohmann::json::parse(
            R"({"v": {"x": 9}, "a": {"t": {}, "v": [0, {"x": 4}]}, "l": [], "z": 1})"));
  std::string seen;
  read_json_table(text, "a.t", [&](const JsonTableEntry& entry) {
    REQUIRE(entry.texts.size() == 1);
    seen += entry.texts[0] + std::to_string(entry.number) + (entry.is_pair ? "!" : " ");
  });
  CHECK(seen == "x1 y2 x3 ");
  seen.clear();
  read_json_table(text, "l", [&](const JsonTableEntry& entry) {
    for (const auto& part : entry.texts) seen += part + ",";
    seen += entry.is_pair ? "pair " : "text ";
  });
  CHECK(seen == "p q,text r,s,pair u,pair ");
}

}  // namespace dsmoe
