// Ids of Hugging Face's tokenizers for every code point, form by form of tokenizer.json. The
// checksums of tests/golden/pre_tokenizers were made from the package alone by
// scripts/compare_tokenizers.py --write.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "common/io.h"
#include "data/hf_bpe_tokenizer.h"
#include "data/utf8.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Json = nlohmann::json;

constexpr uint32_t kBlock = 4096;
constexpr uint32_t kCodesOfText = 64;

std::string golden_directory() { return DSMOE_SOURCE_DIR "/tests/golden/pre_tokenizers"; }

Json read_json(const std::string& path) {
  return Json::parse(read_file(posix_io(), path, 1 << 22));
}

// The tokenizer that the script makes: bytes, and a merge for every two of them.
Json golden_tokenizer(const Json& pre_tokenizer, const Json& normalizer) {
  auto characters = byte_characters();
  std::sort(characters.begin(), characters.end());
  Json vocabulary;
  auto merges = Json::array();
  for (const auto& character : characters) vocabulary[character] = vocabulary.size();
  for (const auto& left : characters) {
    for (const auto& right : characters) {
      vocabulary[left + right] = vocabulary.size();
      merges.push_back({left, right});
    }
  }
  return {{"added_tokens", Json::array()},
          {"normalizer", normalizer},
          {"pre_tokenizer", pre_tokenizer},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}}};
}

// CRC-32 as zlib's.
class Checksum {
 public:
  void add(const std::vector<int32_t>& ids) {
    for (const auto id : ids) {
      for (int shift = 0; shift < 32; shift += 8) add(static_cast<uint8_t>(id >> shift));
    }
    add(static_cast<uint8_t>(';'));
  }
  std::string text() const {
    std::array<char, 9> digits{};
    std::snprintf(digits.data(), digits.size(), "%08x", ~crc_);
    return digits.data();
  }

 private:
  void add(uint8_t byte) {
    static const auto kTable = [] {
      std::array<uint32_t, 256> table{};
      for (uint32_t i = 0; i < 256; ++i) {
        table[i] = i;
        for (int bit = 0; bit < 8; ++bit)
          table[i] = (table[i] >> 1) ^ (0xEDB88320u & (0u - (table[i] & 1)));
      }
      return table;
    }();
    crc_ = kTable[(crc_ ^ byte) & 0xFF] ^ (crc_ >> 8);
  }
  uint32_t crc_ = 0xFFFFFFFF;
};

std::string in_context(const std::string& context, uint32_t code) {
  std::string text;
  for (const char letter : context) {
    if (letter == '%') {
      append_utf8(text, code);
    } else {
      text.push_back(letter);
    }
  }
  return text;
}

std::string block_checksum(const Tokenizer& tokenizer, const std::string& context, uint32_t begin) {
  Checksum sum;
  // In planes in which no character is assigned, one in 16.
  const uint32_t step = begin >= 0x40000 && begin >> 16 != 14 ? 16 : 1;
  for (uint32_t first = begin; first < begin + kBlock; first += kCodesOfText) {
    if (first >= 0xD800 && first < 0xE000) continue;
    std::string text;
    for (uint32_t code = first; code < first + kCodesOfText; code += step) {
      text += in_context(context, code);
    }
    sum.add(tokenizer.encode(text));
  }
  return sum.text();
}

void check_form(const std::string& path, const Json& inputs) {
  const auto golden = read_json(path);
  const HfBpeTokenizer tokenizer(
      golden_tokenizer(golden["pre_tokenizer"], golden["normalizer"]).dump(), path, {}, {});
  const auto context = inputs["context"].get<std::string>();
  REQUIRE(golden["blocks"].size() == 0x110000 / kBlock);
  for (uint32_t i = 0; i < golden["blocks"].size(); ++i) {
    INFO(path << ": code points from " << std::hex << i * kBlock);
    CHECK(block_checksum(tokenizer, context, i * kBlock) == golden["blocks"][i]);
  }
  REQUIRE(golden["strings"].size() == inputs["strings"].size());
  for (size_t i = 0; i < golden["strings"].size(); ++i) {
    const auto text = inputs["strings"][i].get<std::string>();
    INFO(path << ": " << text);
    Checksum sum;
    sum.add(tokenizer.encode(text));
    CHECK(sum.text() == golden["strings"][i]);
  }
}

}  // namespace

TEST_CASE("pre-tokenizers: ids are those of the tokenizers library on every code point") {
  const auto inputs = read_json(golden_directory() + "/strings.json");
  int n_forms = 0;
  for (const auto& item : std::filesystem::directory_iterator(golden_directory())) {
    const auto path = item.path();
    if (path.filename() == "strings.json") continue;
    check_form(path.string(), inputs);
    ++n_forms;
  }
  CHECK(n_forms == 25);
}

TEST_CASE("pre-tokenizers: an unsupported form is refused by its name") {
  const auto refusal = [](const Json& pre_tokenizer, const Json& normalizer) -> std::string {
    try {
      HfBpeTokenizer(golden_tokenizer(pre_tokenizer, normalizer).dump(), "t.json", {}, {});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const Json level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const auto sequence = [](std::vector<Json> steps) {
    return Json{{"type", "Sequence"}, {"pretokenizers", steps}};
  };
  const auto split = [](const std::string& pattern) {
    return Json{{"type", "Split"},
                {"pattern", {{"Regex", pattern}}},
                {"behavior", "Isolated"},
                {"invert", false}};
  };
  CHECK(refusal(level, nullptr).empty());
  CHECK(refusal(sequence({split(R"(\p{L}+)"), level}), {{"type", "NFC"}}).empty());
  for (const std::string type :
       {"Metaspace", "Whitespace", "WhitespaceSplit", "BertPreTokenizer"}) {
    CHECK_THAT(refusal(sequence({Json{{"type", type}}, level}), nullptr), Contains(type));
  }
  for (const std::string type : {"NFKC", "NFD", "Lowercase", "Replace", "Prepend", "Strip"}) {
    CHECK_THAT(refusal(level, Json{{"type", type}}), Contains(type));
    CHECK_THAT(refusal(level, {{"type", "Sequence"}, {"normalizers", {Json{{"type", type}}}}}),
               Contains(type));
  }
  CHECK_THAT(refusal(sequence({split("a")}), nullptr), Contains("ends with ByteLevel"));
  CHECK_THAT(refusal(sequence({level, split("a")}), nullptr), Contains("Split after it"));
  CHECK_THAT(refusal(nullptr, nullptr), Contains("none"));
  // Patterns that Oniguruma and PCRE2 read differently, or that lack a table.
  for (const std::string construct : {"\\w",
                                      "\\b",
                                      "\\h",
                                      "\\R",
                                      "\\X",
                                      "\\K",
                                      "\\G",
                                      "\\1",
                                      "\\p{Arabic}",
                                      "(?<name>",
                                      "(?x)",
                                      "(?#",
                                      "(*",
                                      "[[:alpha:]]"}) {
    const auto expected = construct.starts_with("\\p") ? "Arabic" : construct.substr(0, 2);
    const auto closed = construct.starts_with("(") ? construct + "a)" : construct;
    INFO(construct);
    CHECK_THAT(refusal(sequence({split("a|" + closed), level}), nullptr), Contains("pattern"));
    CHECK_THAT(refusal(sequence({split("a|" + closed), level}), nullptr),
               Contains(construct == "[[:alpha:]]" ? "[:" : expected));
  }
  CHECK_THAT(refusal(sequence({split("(?i:stop)"), level}), nullptr), Contains("(?i) before 'st'"));
  CHECK_THAT(refusal(sequence({split("(?i:\\p{Lu})"), level}), nullptr), Contains("Lu"));
  CHECK_FALSE(refusal(sequence({split("(a"), level}), nullptr).empty());
  CHECK_FALSE(refusal(sequence({split("a)"), level}), nullptr).empty());
  CHECK_FALSE(refusal(sequence({split("*a"), level}), nullptr).empty());
}

}  // namespace dsmoe
