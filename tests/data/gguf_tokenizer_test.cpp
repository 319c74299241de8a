#include "data/gguf_tokenizer.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "common/io.h"
#include "data/hf_bpe_tokenizer.h"
#include "data/sentencepiece_model.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/tokenizer_files.h"
#include "support/shared_data.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

template <class T>
T value_of(const GgufMetadata& metadata, const std::string& key) {
  for (const auto& [name, value] : metadata) {
    if (name == "tokenizer.ggml." + key) return std::get<T>(value);
  }
  throw std::runtime_error("no key " + key);
}

}  // namespace

TEST_CASE("gguf_tokenizer: byte-level BPE has the tokens and merges of its file", "[data]") {
  const std::string folder = GENERATE("bpe_gpt2", "bpe_llama3");
  const auto path = DSMOE_SOURCE_DIR "/tests/golden/" + folder + "/tokenizer.json";
  auto json = nlohmann::json::parse(read_file(posix_io(), path, 1 << 24));
  if (folder == "bpe_gpt2") {  // the format cannot express its blank before a text
    CHECK(gguf_tokenizer(*make_tokenizer(path, {}), 512).empty());
    json["pre_tokenizer"]["add_prefix_space"] = false;
  }
  const HfBpeTokenizer tokenizer(json.dump(), "t", std::nullopt, std::nullopt);
  const auto metadata = gguf_tokenizer(tokenizer, tokenizer.vocab_size() + 2);
  CHECK(value_of<std::string>(metadata, "model") == "gpt2");
  CHECK(value_of<std::string>(metadata, "pre") == (folder == "bpe_gpt2" ? "gpt-2" : "llama-bpe"));
  const auto tokens = value_of<std::vector<std::string>>(metadata, "tokens");
  const auto types = value_of<std::vector<int32_t>>(metadata, "token_type");
  for (const auto& [text, id] : json["model"]["vocab"].items()) CHECK(tokens[id] == text);
  for (const auto& added : json["added_tokens"]) {
    CHECK(tokens[added["id"]] == added["content"]);
    CHECK(types[added["id"]] == (added["special"] ? 3 : 4));
  }
  CHECK(types.back() == 5);  // fills up to the model's vocabulary
  CHECK(tokens.size() == static_cast<size_t>(tokenizer.vocab_size()) + 2);
  const auto merges = value_of<std::vector<std::string>>(metadata, "merges");
  REQUIRE(merges.size() == json["model"]["merges"].size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto& merge = json["model"]["merges"][i];
    CHECK(merges[i] == (merge.is_string()
                            ? merge.get<std::string>()
                            : merge[0].get<std::string>() + " " + merge[1].get<std::string>()));
  }
}

TEST_CASE("gguf_tokenizer: SentencePiece BPE has its pieces, scores and types", "[data]") {
  const auto path = shared_data("models/stories260K/tok512.model");
  if (path.empty()) return;
  const auto metadata = gguf_tokenizer(*make_tokenizer(path, {}), 512);
  CHECK(value_of<std::string>(metadata, "model") == "llama");
  const auto tokens = value_of<std::vector<std::string>>(metadata, "tokens");
  const auto types = value_of<std::vector<int32_t>>(metadata, "token_type");
  const auto scores = value_of<std::vector<float>>(metadata, "scores");
  REQUIRE(tokens.size() == 512);
  REQUIRE(types.size() == 512);
  CHECK(tokens[0] == "<unk>");
  CHECK(tokens[261] ==
        "\xE2\x96\x81"
        "a");
  CHECK(tokens[13] == "<0x0A>");
  CHECK(types[0] == 2);
  CHECK(types[1] == 3);
  CHECK(types[13] == 6);
  CHECK(types[261] == 1);
  CHECK(scores[261] == -2.0F);
  CHECK(value_of<uint32_t>(metadata, "bos_token_id") == 1);
  CHECK(value_of<uint32_t>(metadata, "eos_token_id") == 2);
  CHECK(value_of<uint32_t>(metadata, "unknown_token_id") == 0);
  CHECK(value_of<bool>(metadata, "add_bos_token"));
  CHECK(value_of<bool>(metadata, "add_space_prefix"));
  CHECK(value_of<bool>(metadata, "remove_extra_whitespaces"));
}

TEST_CASE("gguf_tokenizer: special tokens have their ids, types and every end of a text",
          "[data]") {
  const std::string golden = DSMOE_SOURCE_DIR "/tests/golden/special_tokens/";
  const auto directories =
      nlohmann::json::parse(read_file(posix_io(), golden + "directories.json", 1 << 20));
  const auto bpe = directories["bpe with a template"]["files"]["tokenizer.json"].dump();
  const auto pieces = read_file(posix_io(), golden + "pieces.model", 1 << 20);
  SpecialTokens special{.bos = 1, .adds_bos = false, .eos = {320, 2, 321}, .pad = 0};
  special.added = {{.id = 1, .content = "<s>", .special = true},
                   {.id = 320, .content = "<|im_end|>", .special = true},
                   {.id = 322, .content = "<tool>"}};
  const auto llama =
      gguf_tokenizer(SentencePieceTokenizer(pieces, "pieces", special), /*vocab_size=*/330);
  const auto tokens = value_of<std::vector<std::string>>(llama, "tokens");
  const auto types = value_of<std::vector<int32_t>>(llama, "token_type");
  REQUIRE(tokens.size() == 330);
  CHECK(tokens[320] == "<|im_end|>");
  CHECK(tokens[322] == "<tool>");
  CHECK(types[1] == SentencePiece::kControl);
  CHECK(types[320] == SentencePiece::kControl);
  CHECK(types[321] == SentencePiece::kUnused);  // a gap
  CHECK(types[322] == SentencePiece::kUserDefined);
  CHECK(types[329] == SentencePiece::kUnused);
  CHECK(value_of<std::vector<float>>(llama, "scores").size() == 330);
  CHECK(value_of<uint32_t>(llama, "bos_token_id") == 1);
  CHECK_FALSE(value_of<bool>(llama, "add_bos_token"));
  CHECK(value_of<uint32_t>(llama, "eos_token_id") == 320);
  CHECK(value_of<uint32_t>(llama, "eot_token_id") == 2);
  CHECK(value_of<uint32_t>(llama, "eom_token_id") == 321);
  CHECK(value_of<uint32_t>(llama, "padding_token_id") == 0);

  const auto gpt2 = gguf_tokenizer(
      HfBpeTokenizer(bpe, "t", SpecialTokens{.bos = 257, .adds_bos = true, .eos = {258, 10}}), 260);
  CHECK(value_of<bool>(gpt2, "add_bos_token"));
  CHECK(value_of<uint32_t>(gpt2, "eos_token_id") == 258);
  CHECK(value_of<uint32_t>(gpt2, "eot_token_id") == 10);
  CHECK(value_of<std::vector<int32_t>>(gpt2, "token_type")[258] == SentencePiece::kControl);
}

TEST_CASE("gguf_tokenizer: a tokenizer that the format cannot express gives nothing", "[data]") {
  CHECK(gguf_tokenizer(*make_tokenizer("bytes", {}), 257).empty());
  const TemporaryDirectory directory;
  const auto path = DSMOE_SOURCE_DIR "/data/tinyshakespeare/valid.txt";
  const auto text = read_file(posix_io(), path, 1 << 20).substr(0, 50'000);
  write_file(posix_io(), directory.file("text.txt"), text);
  const std::vector<std::string> inputs{directory.file("text.txt")};
  CHECK(gguf_tokenizer(*make_tokenizer("train:unigram:500", inputs), 500).empty());
  CHECK_FALSE(gguf_tokenizer(*make_tokenizer("train:bpe:400", inputs), 400).empty());
}

}  // namespace dsmoe
