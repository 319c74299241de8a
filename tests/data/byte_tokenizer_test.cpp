#include "data/byte_tokenizer.h"

#include <catch2/catch.hpp>

#include "common/error.h"

using namespace dsmoe;

TEST_CASE("ByteTokenizer: every byte maps to its value and back", "[data][tokenizer]") {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text.push_back(static_cast<char>(byte));
  const ByteTokenizer tokenizer;
  const auto ids = tokenizer.encode(text);
  REQUIRE(ids.size() == 256);
  for (int32_t byte = 0; byte < 256; ++byte) REQUIRE(ids[static_cast<size_t>(byte)] == byte);
  REQUIRE(tokenizer.decode(ids) == text);
}

TEST_CASE("ByteTokenizer: the boundary has no text, other ids are refused", "[data][tokenizer]") {
  const ByteTokenizer tokenizer;
  REQUIRE(tokenizer.decode({256, 65, 256, 66}) == "AB");
  REQUIRE(tokenizer.bos_id() == 256);
  REQUIRE(tokenizer.vocab_size() == 257);
  CHECK(tokenizer.decode({65, 257, 66}) == "AB");  // a row of the model without a token
  REQUIRE_THROWS_AS(tokenizer.decode({-1}), Error);
}
