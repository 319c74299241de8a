#include "formats/megatron_index.h"

#include <catch2/catch.hpp>
#include <random>

#include "common/error.h"
#include "support/megatron_pair.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Starts = std::vector<int64_t>;

const MegatronDocuments kDocuments = {{{1, 2, 3}}, {{4}, {5, 6}}, {}, {{}}, {{7}}, {{}}};

// Offsets of the parts of kDocuments' index: 6 sequences, 7 document indices.
constexpr size_t kVersion = 9;
constexpr size_t kType = 17;
constexpr size_t kSequences = 18;
constexpr size_t kLengths = 34;
constexpr size_t kOffsets = kLengths + 6 * 4;
constexpr size_t kIndices = kOffsets + 6 * 8;

std::string altered(size_t at, char value) {
  auto bytes = make_megatron_pair(kDocuments, 2).index;
  bytes[at] = value;
  return bytes;
}

}  // namespace

TEST_CASE(
    "Megatron index: has token count, width and document starts; empty documents are left out") {
  for (const int width : {2, 4}) {
    const auto index = parse_megatron_index(make_megatron_pair(kDocuments, width).index, "i");
    CHECK(index.bytes_per_token == width);
    CHECK(index.n_tokens == 7);
    CHECK(index.document_starts == Starts{0, 3, 6});
  }
  const auto modes = make_megatron_pair(kDocuments, 2).index + std::string(6, '\0');
  CHECK(parse_megatron_index(modes, "i").n_tokens == 7);
  CHECK(parse_megatron_index(make_megatron_pair({}, 2).index, "i").n_tokens == 0);
}

TEST_CASE("Megatron index: other bytes and inconsistent indices are refused") {
  const auto refuses = [](const std::string& bytes, const std::string& why) {
    CHECK_THROWS_WITH(parse_megatron_index(bytes, "x.idx"), Contains("x.idx") && Contains(why));
  };
  refuses("", "magic");
  refuses(altered(0, 'X'), "magic");
  refuses(altered(kVersion, 2), "version 1, got 2");
  refuses(altered(kType, 5), "got 5");
  refuses(altered(kSequences + 7, 0x7F), "sequence lengths");
  refuses(altered(kSequences + 8 + 7, 0x7F), "document indices");
  refuses(altered(kLengths + 3, static_cast<char>(0xFF)), "sequence 0");  // a negative length
  refuses(altered(kLengths, 2), "sequence 1: expected byte 4");
  refuses(altered(kOffsets + 8, 0), "sequence 1: expected byte 6");
  refuses(altered(kIndices, 1), "document 0");
  refuses(altered(kIndices + 8, 4), "document 2");  // 4 after 0, then 3
  refuses(altered(kIndices + 6 * 8, 5), "end with 6");
  const auto whole = make_megatron_pair(kDocuments, 4).index;
  for (size_t size = 0; size < whole.size(); ++size) {
    CHECK_THROWS_AS(parse_megatron_index(whole.substr(0, size), "x"), Error);
  }
}

TEST_CASE("Megatron index: random damage gives an index or an Error, never anything else") {
  std::mt19937 random(5);
  const auto whole = make_megatron_pair(kDocuments, 2).index;
  int n_refused = 0;
  for (int trial = 0; trial < 20'000; ++trial) {
    auto bytes = whole;
    for (int flips = 0; flips < 3; ++flips) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (trial % 4 == 0) bytes.resize(random() % bytes.size());
    try {
      const auto index = parse_megatron_index(bytes, "x");
      for (size_t i = 1; i < index.document_starts.size(); ++i) {
        REQUIRE(index.document_starts[i - 1] < index.document_starts[i]);
      }
      if (!index.document_starts.empty()) REQUIRE(index.document_starts.back() < index.n_tokens);
    } catch (const Error&) {
      ++n_refused;
    }
  }
  CHECK(n_refused > 15'000);
}

}  // namespace dsmoe
