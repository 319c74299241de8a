#include <catch2/catch.hpp>

#include "data/tokenizer.h"

using namespace dsmoe;

TEST_CASE("Utf8Stream: characters come out whole, whatever the cut", "[data][utf8]") {
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

TEST_CASE("Utf8Stream: the pieces of any bytes join to the bytes", "[data][utf8]") {
  const std::string bytes("\xff\x80\x80\x80\x80\xc3(\xe2\x82\xf0\x9f\x98", 12);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    Utf8Stream stream;
    std::string joined = stream.push(std::string_view(bytes).substr(0, cut));
    joined += stream.push(std::string_view(bytes).substr(cut));
    joined += stream.finish();
    REQUIRE(joined == bytes);
  }
}
