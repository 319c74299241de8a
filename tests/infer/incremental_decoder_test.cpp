#include "infer/incremental_decoder.h"

#include <catch2/catch.hpp>
#include <memory>

#include "common/random_seed.h"
#include "data/byte_tokenizer.h"
#include "data/tokenizer_files.h"
#include "support/shared_data.h"

namespace dsmoe {
namespace {

using Ids = std::vector<int32_t>;

// Counts the ids that are decoded.
class CountingTokenizer final : public Tokenizer {
 public:
  explicit CountingTokenizer(const Tokenizer& inner) : inner_(inner) {}
  Ids encode(std::string_view text) const override { return inner_.encode(text); }
  std::string decode(const Ids& ids) const override {
    n_decoded += static_cast<int64_t>(ids.size());
    return inner_.decode(ids);
  }
  int64_t vocab_size() const override { return inner_.vocab_size(); }
  const SpecialTokens& special_tokens() const override { return inner_.special_tokens(); }
  std::string fingerprint() const override { return inner_.fingerprint(); }

  mutable int64_t n_decoded = 0;

 private:
  const Tokenizer& inner_;
};

std::vector<std::unique_ptr<Tokenizer>> every_kind() {
  std::vector<std::unique_ptr<Tokenizer>> tokenizers;
  tokenizers.push_back(std::make_unique<ByteTokenizer>());
  for (const std::string kind : {"gpt2", "llama3"}) {
    const auto path = DSMOE_SOURCE_DIR "/tests/golden/bpe_" + kind + "/tokenizer.json";
    tokenizers.push_back(make_tokenizer(path, {}));
  }
  for (const char* name : {"tokenizers/mistral-v1.model",      // byte fallback
                           "tokenizers/t5-base-spiece.model",  // drops all leading blanks
                           "tokenizers/spm-test-unigram1k.model",
                           "models/stories260K/tok512.model"}) {
    const auto path = shared_data(name);
    if (!path.empty()) tokenizers.push_back(make_tokenizer(path, {}));
  }
  return tokenizers;
}

// Ids of texts, and any ids: blanks, specials and bytes of broken characters in a row.
std::vector<Ids> id_lists(const Tokenizer& tokenizer) {
  std::vector<Ids> lists;
  for (const char* text : {" leading",
                           "   three blanks",
                           "na\xC3\xAFve \xE2\x82\xAC\xF0\x9F\x8C\x8D!",
                           "\xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\xA6\x86\n\n  x",
                           "a b c"}) {
    lists.push_back(tokenizer.encode_with_bos(text));
  }
  lists.push_back({});
  Ids blanks = tokenizer.encode(" ");
  const Ids blank = blanks;
  for (int i = 0; i < 3; ++i) blanks.insert(blanks.end(), blank.begin(), blank.end());
  lists.push_back(blanks);
  for (uint64_t list = 0; list < 30; ++list) {
    Ids ids;
    for (uint64_t i = 0; i < 12; ++i) {
      const uint64_t draw = mix_bits(100 * list + i);
      const auto range = static_cast<uint64_t>(draw % 2 == 0 ? 300 : tokenizer.vocab_size());
      ids.push_back(static_cast<int32_t>((draw >> 8) % range));
    }
    lists.push_back(ids);
  }
  return lists;
}

}  // namespace

TEST_CASE("IncrementalDecoder: bytes, joined, are those of the whole list at every prefix") {
  for (const auto& tokenizer : every_kind()) {
    for (const auto& ids : id_lists(*tokenizer)) {
      for (size_t n_prompt = 0; n_prompt <= ids.size(); ++n_prompt) {
        const auto at = [&](size_t n) { return ids.begin() + static_cast<ptrdiff_t>(n); };
        IncrementalDecoder decoder(*tokenizer, {ids.data(), n_prompt});
        auto text = tokenizer->decode(Ids(ids.begin(), at(n_prompt)));
        for (size_t n = n_prompt; n < ids.size(); ++n) {
          text += decoder.push(ids[n]);
          INFO(tokenizer->fingerprint() << ", prompt of " << n_prompt << ", id " << n);
          CHECK(text == tokenizer->decode(Ids(ids.begin(), at(n + 1))));
        }
      }
    }
  }
}

TEST_CASE(
    "IncrementalDecoder: an id costs as many decoded ids after a long text as after a short") {
  for (const auto& tokenizer : every_kind()) {
    const CountingTokenizer counting(*tokenizer);
    const auto prompt = tokenizer->encode_with_bos("To be or not");
    IncrementalDecoder decoder(counting, prompt);
    CHECK(counting.n_decoded <= 2);  // of the prompt
    for (int i = 0; i < 1000; ++i) {
      counting.n_decoded = 0;
      decoder.push(prompt.back());
      CHECK(counting.n_decoded == 2);
    }
  }
}

}  // namespace dsmoe
