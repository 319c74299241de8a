#include "data/text_lines.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Lines = std::vector<std::pair<std::string, std::string>>;  // place, text

// The file is in a temporary directory; places are given without it.
Lines lines_of(const std::string& bytes, bool are_json = false, const std::string& name = "a.txt") {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file(name), bytes);
  TextFile file(posix_io(), directory.file(name));
  Lines lines;
  const auto add = [&](const TextLine& line) {
    lines.emplace_back(line.place.substr(directory.file("").size()), line.text);
  };
  are_json ? read_json_lines(file, add) : read_lines(file, add);
  return lines;
}

bool is_json(const std::string& name, const std::string& bytes, const std::string& field = "") {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file(name), bytes);
  return holds_json_lines(TextFile(posix_io(), directory.file(name)), field);
}

}  // namespace

TEST_CASE("read_lines: LF and CR LF end a line, blank lines count and are skipped", "[data]") {
  const Lines expected = {{"a.txt:1", "the"}, {"a.txt:4", " king"}};
  CHECK(lines_of("the\n\n \t\n king\n") == expected);
  CHECK(lines_of("the\r\n\r\n \t\r\n king\r\n") == expected);
  CHECK(lines_of("\xEF\xBB\xBFthe\r\n\n\n king") == expected);
  CHECK(lines_of("a\rb\r\r\n") == Lines{{"a.txt:1", "a\rb\r"}});
  CHECK(lines_of("").empty());
  CHECK(lines_of("\xEF\xBB\xBF").empty());
}

TEST_CASE("read_lines: lines are whole wherever the pieces end", "[data]") {
  std::string text;
  size_t n_lines = 0;
  for (; text.size() < 2'500'000; ++n_lines) text += std::to_string(n_lines) + "\r\n";
  const auto lines = lines_of(text);
  REQUIRE(lines.size() == n_lines);
  size_t n_wrong = 0;
  for (size_t i = 0; i < n_lines; ++i) n_wrong += lines[i].second == std::to_string(i) ? 0 : 1;
  CHECK(n_wrong == 0);
}

TEST_CASE("read_json_lines: one array or object of several lines is refused with advice",
          "[data]") {
  CHECK_THROWS_WITH(lines_of("\n [{\"text\": \"a\"}]\n", true),
                    Contains("array") && Contains("jq"));
  CHECK_THROWS_WITH(lines_of("{\n \"text\": \"a\"\n}\n", true),
                    Contains("several lines") && Contains("jq"));
  CHECK(lines_of("{\"a\": 1}\n", true) == Lines{{"a.txt:1", "{\"a\": 1}"}});
}

TEST_CASE("parse_json_line: the error names the place of a line that is not a UTF-8 object",
          "[data]") {
  CHECK(parse_json_line({"{\"a\": 1} ", "f:3"})["a"] == 1);
  for (const std::string line : {"3", "[1]", "{\"a\": ", "{\"a\": \"\xFF\"}"}) {
    CHECK_THROWS_WITH(parse_json_line({line, "f:3"}), Contains("f:3"));
  }
}

TEST_CASE("holds_json_lines: decides by ending in any case, or by a key and the first line",
          "[data]") {
  for (const std::string name :
       {"a.jsonl", "A.JSONL", "a.ndjson", "a.json", "a.Json.GZ", "a.jsonl.zst"}) {
    CAPTURE(name);
    CHECK(is_json(name, "x"));
  }
  for (const std::string name : {"a.txt", "jsonl", "a.jsonl.txt", "a.gz"}) {
    CAPTURE(name);
    CHECK_FALSE(is_json(name, "{\"text\": \"a\"}\n"));
    CHECK(is_json(name, "\n{\"text\": \"a\"}\n", "text"));
    CHECK_FALSE(is_json(name, "{ brace of plain text }\n", "text"));
    CHECK_FALSE(is_json(name, "one\n{\"text\": \"a\"}\n", "text"));
  }
}

TEST_CASE("TextFile: UTF-16 is refused with advice", "[data]") {
  CHECK_THROWS_WITH(lines_of(std::string("\xFF\xFEt\0", 4)),
                    Contains("UTF-16") && Contains("iconv"));
}

TEST_CASE("read_text_file: reads the whole text, without its mark, within a limit", "[data]") {
  const TemporaryDirectory directory;
  write_file(posix_io(),
             directory.file("a"),
             "\xEF\xBB\xBF"
             "ab\r\n");
  CHECK(read_text_file(posix_io(), directory.file("a"), 4) == "ab\r\n");
  CHECK_THROWS_AS(read_text_file(posix_io(), directory.file("a"), 3), Error);
}

}  // namespace dsmoe
