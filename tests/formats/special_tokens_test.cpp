#include "formats/special_tokens.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "formats/hf_special_tokens.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;

// A vocabulary of "a", "b", "<s>" and "</s>" as ids 0 to 3.
std::optional<int32_t> find_letter(const std::string& text) {
  const std::vector<std::string> texts{"a", "b", "<s>", "</s>"};
  for (size_t i = 0; i < texts.size(); ++i) {
    if (texts[i] == text) return static_cast<int32_t>(i);
  }
  return std::nullopt;
}

// Reads the special tokens of files, given by name.
SpecialTokens read(const std::vector<std::pair<const char*, const char*>>& files,
                   OwnVocabulary own = {.find = find_letter}) {
  const TemporaryDirectory directory;
  for (const auto& [name, text] : files) write_file(posix_io(), directory.file(name), text);
  return read_hf_special_tokens(
      posix_io(), directory.file(""), directory.file("tokenizer.json"), own);
}

constexpr const char* kTemplate =
    R"({"model": {}, "added_tokens": [{"id": 4, "content": "<x>", "special": true}],
        "post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"},
          {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>"}},
            {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}]}]}})";

}  // namespace

TEST_CASE("SpecialTokens: the JSON of a checkpoint gives the same value again", "[formats]") {
  SpecialTokens special{.bos = 1,
                        .adds_bos = true,
                        .adds_eos = true,
                        .eos = {2, 7},
                        .pad = 0,
                        .prefixes_every_piece = true};
  special.added = {
      {.id = 7, .content = "<e>", .special = true, .rstrip = true},
      {.id = 8, .content = "w", .single_word = true, .lstrip = true, .normalized = true}};
  const auto json = nlohmann::json::parse(special_tokens_to_json(special).dump());
  CHECK(special_tokens_from_json(json, "t") == special);
  CHECK(special_tokens_from_json(
            nlohmann::json::parse(special_tokens_to_json(SpecialTokens{}).dump()), "t") ==
        SpecialTokens{});
  CHECK_THROWS_WITH(special_tokens_from_json({{"eos", {-1}}}, "t.json"), Contains("t.json"));
  CHECK_THROWS_WITH(special_tokens_from_json({{"bos", "x"}}, "t"), Contains("'bos'"));
  CHECK_THROWS_WITH(
      special_tokens_from_json(nlohmann::json::parse(R"({"added": [{"id": 1}]})"), "t"),
      Contains("content"));
  CHECK_THROWS_WITH(
      special_tokens_from_json(
          nlohmann::json::parse(R"({"added": [{"id": 1, "content": "a\u0000"}]})"), "t"),
      Contains("content"));
  // A checkpoint from before the key: a text begins with BOS where there is one.
  CHECK(special_tokens_from_json(nlohmann::json::parse(R"({"bos": 1})"), "t").adds_bos);
  CHECK_FALSE(special_tokens_from_json(nlohmann::json::object(), "t").adds_bos);
}

TEST_CASE("added_tokens_fingerprint: depends on added tokens and the place of the blank",
          "[formats]") {
  const SpecialTokens one{.added = {{.id = 7, .content = "<e>"}}};
  auto other = one;
  other.added[0].lstrip = true;
  auto prefixed = one;
  prefixed.prefixes_every_piece = true;
  CHECK(added_tokens_fingerprint({.bos = 1, .eos = {2}}).empty());
  CHECK_FALSE(added_tokens_fingerprint(one).empty());
  CHECK(added_tokens_fingerprint(one) != added_tokens_fingerprint(other));
  CHECK(added_tokens_fingerprint(one) != added_tokens_fingerprint(prefixed));
}

TEST_CASE("set_special_ids: several EOS are a list, one is a number, none is null", "[formats]") {
  nlohmann::ordered_json config;
  set_special_ids(config, {.bos = 1, .eos = {2, 7}});
  CHECK(config.dump() == R"({"bos_token_id":1,"eos_token_id":[2,7],"pad_token_id":null})");
  set_special_ids(config, {.eos = {2}, .pad = 3});
  CHECK(config.dump() == R"({"bos_token_id":null,"eos_token_id":2,"pad_token_id":3})");
  set_special_ids(config, {});
  CHECK(config["eos_token_id"].is_null());
}

TEST_CASE("read_hf_special_tokens: every id of every file ends a text, the name's first",
          "[formats]") {
  CHECK(read({}).eos.empty());
  CHECK(read({{"config.json", R"({"eos_token_id": 3})"}}).eos == Ids{3});
  CHECK(read({{"config.json", R"({"eos_token_id": [3, 1]})"}}).eos == Ids{3, 1});
  CHECK(read({{"config.json", R"({"eos_token_id": 3})"},
              {"generation_config.json", R"({"eos_token_id": [1, 3]})"}})
            .eos == Ids{1, 3});
  CHECK(read({{"config.json", R"({"eos_token_id": [1, 0]})"},
              {"tokenizer_config.json", R"({"eos_token": {"content": "</s>"}})"}})
            .eos == Ids{3, 1, 0});
  // A negative id and null mean none.
  CHECK(read({{"config.json", R"({"eos_token_id": null, "pad_token_id": -1})"}}) ==
        SpecialTokens{});
  CHECK(read({{"config.json", R"({"pad_token_id": 1})"}}).pad == 1);
  CHECK_THROWS_WITH(read({{"config.json", R"({"eos_token_id": "x"})"}}), Contains("config.json"));
  CHECK_THROWS_WITH(read({{"generation_config.json", R"({"eos_token_id": [1, 2.5]})"}}),
                    Contains("generation_config.json"));
}

TEST_CASE(
    "read_hf_special_tokens: the template or add_bos_token decides whether a text begins with BOS",
    "[formats]") {
  const auto plain = read({{"tokenizer_config.json", R"({"bos_token": "<s>"})"}});
  CHECK(plain.bos == 2);
  CHECK_FALSE(plain.adds_bos);
  const auto added =
      read({{"tokenizer_config.json", R"({"bos_token": "<s>", "add_bos_token": true})"}});
  CHECK(added.adds_bos);
  const auto by_template =
      read({{"tokenizer.json", kTemplate},
            {"tokenizer_config.json", R"({"bos_token": "<s>", "add_bos_token": false})"}});
  CHECK(by_template.bos == 4);
  CHECK(by_template.adds_bos);
  CHECK(by_template.adds_eos);
  const auto begins_only = read({{"tokenizer.json", R"({"model": {}, "post_processor": {
      "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}},
        {"Sequence": {"id": "A"}}]}})"}});
  CHECK(begins_only.adds_bos);
  CHECK_FALSE(begins_only.adds_eos);
  // No tokenizer file names it: the BOS of the model, and no text begins with it.
  const auto of_model = read({{"config.json", R"({"bos_token_id": 2})"}});
  CHECK(of_model.bos == 2);
  CHECK_FALSE(of_model.adds_bos);
  CHECK_FALSE(read({{"tokenizer_config.json", R"({"add_bos_token": true})"}}).adds_bos);

  const OwnVocabulary own{.find = find_letter, .bos = 2, .eos = 3, .adds_bos = true};
  CHECK(read({}, own) == SpecialTokens{.bos = 2, .adds_bos = true, .eos = {3}});
  CHECK_FALSE(read({{"tokenizer_config.json", R"({"add_bos_token": false})"}}, own).adds_bos);
  const auto none =
      read({{"tokenizer_config.json", R"({"bos_token": null, "eos_token": null})"}}, own);
  CHECK(none == SpecialTokens{});
}

TEST_CASE("read_hf_special_tokens: takes added tokens of every file, with the later file's flags",
          "[formats]") {
  const auto old = read({{"tokenizer_config.json", R"({"eos_token": "<e>"})"},
                         {"added_tokens.json", R"({"<e>": 5, "<t>": 6})"}});
  REQUIRE(old.added.size() == 2);
  CHECK(old.added[0] == AddedToken{.id = 5, .content = "<e>", .special = true});
  CHECK(old.added[1] == AddedToken{.id = 6, .content = "<t>", .normalized = true});
  CHECK(old.eos == Ids{5});

  const auto decoder = read({{"tokenizer.json", kTemplate},
                             {"added_tokens.json", R"({"<hidden>": 9})"},
                             {"special_tokens_map.json", R"({"eos_token": "<hidden>"})"},
                             {"tokenizer_config.json",
                              R"({"eos_token": "<y>", "pad_token": "<x>", "added_tokens_decoder": {
                                 "5": {"content": "<y>", "special": true, "lstrip": true},
                                 "4": {"content": "<x>", "special": false}}})"}});
  REQUIRE(decoder.added.size() == 2);
  CHECK(decoder.added[0] == AddedToken{.id = 4, .content = "<x>", .normalized = true});
  CHECK(decoder.added[1] == AddedToken{.id = 5, .content = "<y>", .special = true, .lstrip = true});
  CHECK(decoder.eos == Ids{5});
  CHECK(decoder.pad == 4);
  const auto twice = read(
      {{"added_tokens.json", R"({"<e>": 5})"},
       {"tokenizer.json", R"({"added_tokens": [{"id": 6, "content": "<e>", "rstrip": true}]})"}});
  REQUIRE(twice.added.size() == 1);
  CHECK(twice.added[0].id == 5);
  CHECK(twice.added[0].rstrip);
  // A named token of the vocabulary is found in texts; one without a row in the model is left out.
  const auto named =
      read({{"tokenizer_config.json", R"({"bos_token": "<s>", "pad_token": "[PAD]"})"}});
  REQUIRE(named.added.size() == 1);
  CHECK(named.added[0] == AddedToken{.id = 2, .content = "<s>", .special = true});
  CHECK_FALSE(named.pad.has_value());
}

TEST_CASE("read_hf_special_tokens: finds the place of the leading blank of pieces", "[formats]") {
  const auto prefixes = [](const char* name, const char* text) {
    return read({{name, text}}).prefixes_every_piece;
  };
  CHECK_FALSE(prefixes("tokenizer_config.json", "{}"));
  CHECK(prefixes("tokenizer_config.json", R"({"legacy": true})"));
  CHECK(prefixes("tokenizer.json",
                 R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend"}]}})"));
  CHECK(prefixes("tokenizer.json",
                 R"({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "always"}})"));
  CHECK_FALSE(prefixes("tokenizer.json",
                       R"({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}})"));
}

TEST_CASE("read_hf_special_tokens: an invalid value is refused with the file's name", "[formats]") {
  CHECK_THROWS_WITH(read({{"added_tokens.json", R"({"<e>": -5})"}}), Contains("added_tokens.json"));
  CHECK_THROWS_WITH(read({{"added_tokens.json", R"({"<e>": 5, "<f>": 5})"}}),
                    Contains("'<e>' and '<f>'"));
  CHECK_THROWS_WITH(read({{"tokenizer_config.json", R"({"added_tokens_decoder": {"x": {}}})"}}),
                    Contains("'x'"));
  CHECK_THROWS_WITH(read({{"tokenizer_config.json", R"({"added_tokens_decoder": {"5": {}}})"}}),
                    Contains("content"));
  CHECK_THROWS_WITH(read({{"tokenizer_config.json", "[]"}}), Contains("JSON object"));
}

}  // namespace dsmoe
