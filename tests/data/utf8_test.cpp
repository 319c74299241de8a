#include <catch2/catch.hpp>

#include "data/utf8.h"

using namespace dsmoe;

TEST_CASE("UTF-8: finds the first bad byte by the table of the Unicode standard") {
  for (const std::string good : {"",
                                 "abc",
                                 "\xC2\x80",
                                 "\xDF\xBF",
                                 "\xE0\xA0\x80",
                                 "\xED\x9F\xBF",
                                 "\xEE\x80\x80",
                                 "\xF0\x90\x80\x80",
                                 "\xF4\x8F\xBF\xBF"}) {
    CHECK(find_invalid_utf8(good) == std::string::npos);
    CHECK(find_invalid_utf8("12345678901" + good + "x") == std::string::npos);
  }
  for (const std::string bad : {"\x80",
                                "\xBF",
                                "\xC0\x80",
                                "\xC1\xBF",
                                "\xC2",
                                "\xC2x",
                                "\xE0\x9F\xBF",
                                "\xE2\x82",
                                "\xED\xA0\x80",
                                "\xED\xBF\xBF",
                                "\xF0\x8F\xBF\xBF",
                                "\xF0\x90\x80",
                                "\xF4\x90\x80\x80",
                                "\xF5\x80\x80\x80",
                                "\xFF"}) {
    CHECK(find_invalid_utf8(bad) == 0);
    CHECK(find_invalid_utf8("123456789" + bad + "x") == 9);
  }
}

TEST_CASE("Utf8Stream: emits whole characters for any cut", "[data][utf8]") {
  const std::string text = "a\u00e9\u20ac\U0001F600z";  // 1, 2, 3, 4 and 1 bytes
  Utf8Stream stream;
  std::vector<std::string> pieces;
  for (const char letter : text) {
    const auto piece = stream.push(std::string_view(&letter, 1));
    if (!piece.empty()) pieces.push_back(piece);
  }
  REQUIRE(pieces == std::vector<std::string>{"a", "\u00e9", "\u20ac", "\U0001F600", "z"});
  REQUIRE(stream.finish().empty());
}

TEST_CASE("Utf8Stream: the emitted pieces join to the input", "[data][utf8]") {
  const std::string bytes("\xff\x80\x80\x80\x80\xc3(\xe2\x82\xf0\x9f\x98", 12);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    Utf8Stream stream;
    std::string joined = stream.push(std::string_view(bytes).substr(0, cut));
    joined += stream.push(std::string_view(bytes).substr(cut));
    joined += stream.finish();
    REQUIRE(joined == bytes);
  }
}
