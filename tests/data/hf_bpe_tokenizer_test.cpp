#include "data/hf_bpe_tokenizer.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "data/tokenizer_files.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;

std::string golden_path(const std::string& kind) {
  return DSMOE_SOURCE_DIR "/tests/golden/bpe_" + kind + "/";
}

std::string read_golden(const std::string& kind) {
  return read_file(posix_io(), golden_path(kind) + "tokenizer.json", 1 << 20);
}

HfBpeTokenizer tokenizer_of(const nlohmann::json& json) {
  return HfBpeTokenizer(json.dump(), "tokenizer.json", std::nullopt, std::nullopt);
}

std::string refusal(const nlohmann::json& json) {
  try {
    tokenizer_of(json);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("HfBpeTokenizer: ids are those of the tokenizers library, for both forms of merges") {
  for (const auto* kind : {"llama3", "gpt2"}) {
    auto json = nlohmann::json::parse(read_golden(kind));
    const auto cases =
        nlohmann::json::parse(read_file(posix_io(), golden_path(kind) + "expected.json", 1 << 20));
    auto as_text = json;
    for (auto& merge : as_text["model"]["merges"]) {
      REQUIRE(merge.is_array());
      merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    }
    for (const auto& form : {json, as_text}) {
      const auto tokenizer = tokenizer_of(form);
      for (const auto& expected : cases) {
        const auto text = expected["text"].get<std::string>();
        INFO(kind << ": " << text);
        const auto ids = tokenizer.encode(text);
        CHECK(ids == expected["ids"].get<Ids>());
        CHECK(tokenizer.decode(ids) == expected["decoded"].get<std::string>());
      }
    }
  }
}

TEST_CASE(
    "HfBpeTokenizer: BOS is the first token of the template, or that of the files beside it") {
  const auto llama = tokenizer_of(nlohmann::json::parse(read_golden("llama3")));
  REQUIRE(llama.bos_id().has_value());
  CHECK(llama.encode("<|begin_of_text|>") == Ids{*llama.bos_id()});
  CHECK(llama.decode({*llama.bos_id()}).empty());
  CHECK_FALSE(llama.eos_id().has_value());

  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("tokenizer.json"), read_golden("gpt2"));
  CHECK_FALSE(make_tokenizer(directory.file("tokenizer.json"), {})->bos_id().has_value());
  write_file(posix_io(), directory.file("config.json"), R"({"eos_token_id": [7, 8]})");
  CHECK(make_tokenizer(directory.file("tokenizer.json"), {})->eos_id() == 7);
  write_file(posix_io(),
             directory.file("tokenizer_config.json"),
             R"({"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|end_of_text|>"}})");
  const auto named = make_tokenizer(directory.file("tokenizer.json"), {});
  CHECK(named->encode("<|begin_of_text|><|end_of_text|>") ==
        Ids{*named->bos_id(), *named->eos_id()});
}

TEST_CASE("HfBpeTokenizer: its files make the same tokenizer again") {
  const TemporaryDirectory directory;
  const HfBpeTokenizer tokenizer(read_golden("llama3"), "tokenizer.json", std::nullopt, 3);
  for (const auto& file : tokenizer_files(tokenizer)) {
    write_file(posix_io(), directory.file(file.name), file.bytes);
  }
  const auto loaded = load_tokenizer(posix_io(), directory.file(""));
  CHECK(loaded->fingerprint() == tokenizer.fingerprint());
  CHECK(loaded->bos_id() == tokenizer.bos_id());
  CHECK(loaded->eos_id() == 3);
  CHECK(loaded->encode("I'm sure") == tokenizer.encode("I'm sure"));
  write_file(posix_io(), directory.file("hf_tokenizer.json"), read_golden("gpt2"));
  CHECK_THROWS_WITH(load_tokenizer(posix_io(), directory.file("")), Contains("fingerprint"));
}

TEST_CASE("HfBpeTokenizer: the time of a long piece is linear in its length") {
  const auto tokenizer = tokenizer_of(nlohmann::json::parse(read_golden("llama3")));
  const std::string text(1 << 20, 'a');  // one piece; quadratic merging would take hours
  CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
}

TEST_CASE("HfBpeTokenizer: negative ids and bytes that are not UTF-8 are refused") {
  const auto tokenizer = tokenizer_of(nlohmann::json::parse(read_golden("gpt2")));
  CHECK_THROWS_AS(tokenizer.decode({-1}), Error);
  CHECK(tokenizer.decode({static_cast<int32_t>(tokenizer.vocab_size())}).empty());
  CHECK_THROWS_WITH(tokenizer.encode("a\xFF"), Contains("offset 1"));
}

TEST_CASE("parse_bpe_tokenizer: the error names the unsupported or invalid part") {
  const auto good = nlohmann::json::parse(read_golden("llama3"));
  CHECK(refusal(good).empty());
  const auto changed = [&](const std::string& path, const nlohmann::json& value) {
    auto json = good;
    json[nlohmann::json::json_pointer(path)] = value;
    return refusal(json);
  };
  CHECK_THAT(changed("/model/type", "Unigram"), Contains("BPE"));
  CHECK_THAT(changed("/model/byte_fallback", true), Contains("byte_fallback"));
  CHECK_THAT(changed("/normalizer", {{"type", "Lowercase"}}), Contains("normalizer"));
  CHECK_THAT(changed("/model/merges/0", {"a", "zz~"}), Contains("zz~"));
  CHECK_THAT(changed("/model/merges/0", "ab"), Contains("'a b'"));
  CHECK_THAT(changed("/model/merges/0", {"a", "b", "c"}), Contains("pairs"));
  CHECK_THAT(changed("/model/vocab/a", 1 << 20), Contains("once each"));
  CHECK_THAT(changed("/model/vocab/a", good["model"]["vocab"]["b"]), Contains("once each"));
  CHECK_THAT(changed("/model/vocab/a", -1), Contains("whole numbers"));
  CHECK_THAT(changed("/added_tokens/0/lstrip", 1), Contains("lstrip"));
  CHECK_THAT(changed("/added_tokens/0/content", ""), Contains("content"));
  CHECK_THAT(changed("/pre_tokenizer", {{"type", "Whitespace"}}), Contains("pre_tokenizer"));
  CHECK_THAT(changed("/pre_tokenizer/pretokenizers/0/pattern/Regex", "(unclosed"),
             Contains("pattern"));
  CHECK_THAT(changed("/pre_tokenizer/pretokenizers/0/behavior", "Discarded"), Contains("behavior"));
  CHECK_THAT(refusal(nlohmann::json::array()), Contains("JSON object"));
  CHECK_THAT(changed("/added_tokens/0/content", std::string("a\0", 2)), Contains("content"));
  auto json = good;
  json["model"]["vocab"].erase("a");
  CHECK_FALSE(refusal(json).empty());
  json = good;
  json["model"]["vocab"]["aa~"] = json["model"]["vocab"].size() + json["added_tokens"].size();
  auto text = json.dump();
  text.replace(text.find("\"aa~\""), 5, "\"a\"");
  CHECK_THROWS_WITH(HfBpeTokenizer(text, "", std::nullopt, std::nullopt),
                    Contains("'a' once in the vocabulary"));
  CHECK(is_byte_level_bpe(good.dump(), ""));
  json["model"]["byte_fallback"] = true;
  CHECK_FALSE(is_byte_level_bpe(json.dump(), ""));
}

}  // namespace
}  // namespace dsmoe
