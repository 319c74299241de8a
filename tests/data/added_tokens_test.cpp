#include "data/added_tokens.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <random>

#include "common/io.h"
#include "data/hf_bpe_tokenizer.h"

namespace dsmoe {
namespace {

nlohmann::json golden() {
  const auto path = DSMOE_SOURCE_DIR "/tests/golden/special_tokens/flags.json";
  return nlohmann::json::parse(read_file(posix_io(), path, 1 << 20));
}

}  // namespace

TEST_CASE("AddedTokens: flags act as in the library tokenizers", "[data]") {
  const auto json = golden();
  const HfBpeTokenizer tokenizer(json["tokenizer"].dump(), "flags.json", SpecialTokens{});
  REQUIRE(json["cases"].size() == 250);
  for (const auto& expected : json["cases"]) {
    const auto text = expected["text"].get<std::string>();
    INFO(text);
    CHECK(tokenizer.encode(text) == expected["ids"].get<std::vector<int32_t>>());
  }
}

TEST_CASE("AddedTokens: the parts of a text, joined, are the text", "[data]") {
  const auto json = golden();
  const HfBpeTokenizer tokenizer(json["tokenizer"].dump(), "flags.json", SpecialTokens{});
  const AddedTokens added(tokenizer.special_tokens().added);
  for (const auto& expected : json["cases"]) {
    const auto text = expected["text"].get<std::string>();
    std::string joined;
    for (const auto& part : added.split(text)) joined += part.text;
    CHECK(joined == text);
  }
}

TEST_CASE("AddedTokens: a text cut where can_cut allows has the same tokens", "[data]") {
  const auto json = golden();
  const HfBpeTokenizer tokenizer(json["tokenizer"].dump(), "flags.json", SpecialTokens{});
  const auto& cases = json["cases"];
  int n_cuts = 0;
  int n_refused = 0;
  for (const bool has_flags : {true, false}) {
    auto tokens = tokenizer.special_tokens().added;
    if (!has_flags) {
      for (auto& token : tokens) token.lstrip = token.rstrip = token.single_word = false;
    }
    const AddedTokens added(tokens);
    const auto ids_of = [&](std::string_view text) {
      std::vector<int32_t> ids;
      for (const auto& part : added.split(text)) {
        if (part.id >= 0) ids.push_back(part.id);
      }
      return ids;
    };
    for (size_t i = 0; i + 1 < cases.size(); ++i) {
      const auto text = cases[i]["text"].get<std::string>();
      const auto next = cases[i + 1]["text"].get<std::string>();
      for (size_t at = 1; at <= text.size(); ++at) {
        if (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) continue;
        if (!added.can_cut(text, at)) {
          ++n_refused;
          continue;
        }
        ++n_cuts;
        const auto whole = text + next;
        auto apart = ids_of(std::string_view(whole).substr(0, at));
        for (const int32_t id : ids_of(std::string_view(whole).substr(at))) apart.push_back(id);
        INFO(whole << " cut at " << at);
        CHECK(apart == ids_of(whole));
      }
    }
  }
  CHECK(n_cuts > 1000);
  CHECK(n_refused > 1000);
}

}  // namespace dsmoe
