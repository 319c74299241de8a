#include "common/printable.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "common/config_reader.h"
#include "common/progress.h"

namespace dsmoe {
namespace {

struct Case {
  std::string text;
  std::string line;
};

TEST_CASE("printable_line: controls and broken bytes become escapes, other text stays") {
  const std::vector<Case> cases{
      {"", ""},
      {"plain, \"quoted\" \\ back", "plain, \"quoted\" \\ back"},
      {"\x1b[31mred\x1b[0m", "\\u001b[31mred\\u001b[0m"},
      {"a\rb\nc\td", "a\\rb\\nc\\td"},
      {std::string("\0\x07\x08\x7f", 4), "\\u0000\\u0007\\u0008\\u007f"},
      {"\xc2\x9b"
       "2J",
       "\\u009b2J"},  // C1, one character in UTF-8
      {"\x9b"
       "2J",
       "\\x9b2J"},  // the same byte alone
      {"\xe2\x80\xae"
       "evil\xe2\x80\xa8",
       "\\u202eevil\\u2028"},
      {"Grüße, 日本 \xf0\x9f\x99\x82", "Grüße, 日本 \xf0\x9f\x99\x82"},
      {"\xff\xfe", "\\xff\\xfe"},
      {"\xc0\xaf \xe0\x80\xaf \xed\xa0\x80", "\\xc0\\xaf \\xe0\\x80\\xaf \\xed\\xa0\\x80"},
      {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},  // above U+10FFFF
      {"cut \xe6\x97", "cut \\xe6\\x97"},
      {"\xe6\x97z", "\\xe6\\x97z"}};
  for (const auto& [text, line] : cases) {
    CAPTURE(text);
    CHECK(printable_line(text) == line);
    CHECK(printable_line(line) == line);
    CHECK(printable_text(line) == line);
  }
  CHECK(printable_text("a\tb\n\x1b[2Jc\rd\n") == "a\tb\n\\u001b[2Jc\\rd\n");
}

TEST_CASE("printable_line: the result of any bytes is UTF-8 without a control character") {
  uint64_t state = 1;
  for (int trial = 0; trial < 2000; ++trial) {
    std::string text;
    for (int i = 0; i < 40; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      text.push_back(static_cast<char>(state >> 56));
    }
    const auto line = printable_line(text);
    CHECK_NOTHROW(nlohmann::json(line).dump());  // strict about UTF-8
    for (const char c : line) {
      const auto byte = static_cast<unsigned char>(c);
      REQUIRE((byte >= 0x20 && byte != 0x7f));
    }
    for (size_t i = 0; i + 1 < line.size(); ++i) {
      const bool is_c1 = line[i] == '\xc2' && static_cast<unsigned char>(line[i + 1]) < 0xa0;
      REQUIRE_FALSE(is_c1);
    }
  }
}

TEST_CASE("printable_text: JSON and the YAML of a config keep their values") {
  const std::string value = "\x1b[31m \x7f \xc2\x9b \xe2\x80\xae \t\n\r é \"\\";
  const auto json = nlohmann::json({{"k", value}});
  const auto shown = printable_text(json.dump());
  CHECK(shown.find('\x7f') == std::string::npos);
  CHECK(nlohmann::json::parse(shown) == json);

  std::string text = value;
  std::vector<std::string> list{value, "plain"};
  const auto describe = [&](ConfigVisitor& v) {
    v.text("name", text, {.doc = ""});
    v.text_list("names", list, {.doc = ""});
  };
  const auto yaml = printable_text(config_to_yaml(describe));
  text.clear();
  list.clear();
  read_config_text(yaml, "echo", {}, describe);
  CHECK(text == value);
  CHECK(list == std::vector<std::string>{value, "plain"});
}

TEST_CASE("ProgressBar: its label is escaped") {
  std::FILE* file = std::tmpfile();
  REQUIRE(file != nullptr);
  ProgressBar("a\x1b[31m\nb", file).show(1, 1);
  std::rewind(file);
  std::string drawn(200, '\0');
  drawn.resize(std::fread(drawn.data(), 1, drawn.size(), file));
  std::fclose(file);
  CHECK_THAT(drawn, Catch::Contains("a\\u001b[31m\\nb ["));
}

}  // namespace
}  // namespace dsmoe
