#include "formats/llama2c_tokenizer.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>

#include "common/error.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

template <class T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Unknown, BOS, EOS, 256 bytes, " t".
std::string make_tokenizer_file(int32_t longest = 6, float last_score = -1.5F) {
  std::string bytes;
  append(bytes, longest);
  const auto add = [&](const std::string& text, float score) {
    append(bytes, score);
    append(bytes, static_cast<int32_t>(text.size()));
    bytes += text;
  };
  for (const auto* text : {"<unk>", "\n<s>\n", "\n</s>"}) add(text, 0.0F);
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), 0.0F);
  add(" t", last_score);
  return bytes;
}

}  // namespace

TEST_CASE("parse_llama2c_tokenizer: returns texts and scores by id", "[formats]") {
  const auto tokens = parse_llama2c_tokenizer(make_tokenizer_file(), "t.bin");
  REQUIRE(tokens.size() == 260);
  CHECK(tokens[0].text == "<unk>");
  CHECK(tokens[3 + 0x41].text == "<0x41>");
  CHECK(tokens[259].text == " t");
  CHECK(tokens[259].score == -1.5F);
}

TEST_CASE("parse_llama2c_tokenizer: every cut and every wrong value is refused by name",
          "[formats]") {
  const auto good = make_tokenizer_file();
  const size_t without_last = good.size() - 10;  // a file of its own
  for (size_t size = 0; size < good.size(); ++size) {
    if (size == without_last) continue;
    CHECK_THROWS_AS(parse_llama2c_tokenizer(good.substr(0, size), "t.bin"), Error);
  }
  const auto refuses = [](const std::string& bytes, const std::string& why) {
    CHECK_THROWS_WITH(parse_llama2c_tokenizer(bytes, "t.bin"),
                      Contains("t.bin: expected a llama2.c tokenizer") && Contains(why));
  };
  refuses(make_tokenizer_file(1 << 30), "the longest token has 1073741824 bytes");
  refuses(make_tokenizer_file(4), "token 0 has 5 bytes");
  refuses(make_tokenizer_file(6, std::nanf("")), "token 259");
  auto negative = good;
  const int32_t length = -1;
  std::memcpy(negative.data() + 8, &length, sizeof(length));
  refuses(negative, "token 0 has -1 bytes");
  auto swapped = good;
  swapped.replace(swapped.find("<0x41>"), 6, "<0x42>");
  refuses(swapped, "token 68 is '<0x42>', not a byte");
}

}  // namespace dsmoe
