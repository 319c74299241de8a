#include "data/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "data/sentencepiece_model.h"
#include "data/tokenizer_files.h"
#include "formats/llama2c_tokenizer.h"
#include "support/shared_data.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

const std::string kText =
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\n  All:\n\tSpeak, speak.\n"
    "na\xC3\xAFve caf\xC3\xA9, \xE2\x82\xAC 5, \xF0\x9F\x8C\x8D and \xE4\xB8\xAD\xE6\x96\x87\n";

std::unique_ptr<Tokenizer> trained(const std::string& spec, const std::string& text) {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("text.txt"), text);
  return make_tokenizer(spec, {directory.file("text.txt")});
}

std::string training_text() {
  const auto path = DSMOE_SOURCE_DIR "/data/tinyshakespeare/valid.txt";
  return read_file(posix_io(), path, 1 << 20).substr(0, 50'000) + kText;
}

}  // namespace

TEST_CASE("trained SentencePiece models give every text back, seen or not") {
  const std::vector<std::string> texts = {"",
                                          " ",
                                          "  two  blanks ",
                                          "\n\n",
                                          "a\nb\n",
                                          "\t",
                                          std::string("a\0b", 3),
                                          kText,
                                          "unseen: Q\xD0\x96\xF0\x9D\x84\x9E",
                                          "x\r\ny"};
  for (const std::string spec : {"train:bpe:600", "train:unigram:600"}) {
    const auto tokenizer = trained(spec, training_text());
    CHECK(tokenizer->vocab_size() == 600);
    CHECK(tokenizer->bos_id().has_value());
    for (const auto& text : texts) {
      INFO(spec << ": " << text);
      CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
    }
    CHECK(tokenizer->encode(kText).size() < kText.size());
    CHECK_THROWS_WITH(tokenizer->encode("ab\xFF"), Contains("offset 2"));
    CHECK(tokenizer->decode({600}).empty());
    CHECK_THROWS_AS(tokenizer->decode({-1}), Error);
  }
}

TEST_CASE("a character tokenizer has one id per character of its text") {
  const auto tokenizer = trained("chars", "abc\nab");
  const auto ids = tokenizer->encode("cab\nc");
  REQUIRE(ids.size() == 5);
  CHECK(tokenizer->decode(ids) == "cab\nc");
  CHECK(tokenizer->vocab_size() == 4 + 3);  // unknown, BOS, EOS
}

TEST_CASE("training a tokenizer twice gives the same bytes") {
  const auto first = trained("train:bpe:300", kText);
  const auto second = trained("train:bpe:300", kText);
  CHECK(first->fingerprint() == second->fingerprint());
  CHECK(trained("train:bpe:301", kText)->fingerprint() != first->fingerprint());
}

TEST_CASE("a text divided anywhere gives the ids of the whole") {
  const auto text = training_text().substr(40'000);
  for (const std::string spec : {"train:bpe:600", "train:unigram:600", "bytes"}) {
    const auto tokenizer = spec == "bytes" ? make_tokenizer(spec, {}) : trained(spec, text);
    const auto whole = tokenizer->encode(text);
    for (size_t size = 1; size < text.size(); size += 97) {
      if ((text[size] & 0xC0) == 0x80) continue;  // inside a character
      const auto beginning = std::string_view(text).substr(0, size);
      const size_t cut = tokenizer->divide(beginning);
      REQUIRE(cut <= size);
      if (size > 200) REQUIRE(cut > 0);
      auto ids = tokenizer->encode(std::string_view(text).substr(0, cut));
      const auto rest = tokenizer->encode_rest(std::string_view(text).substr(cut));
      ids.insert(ids.end(), rest.begin(), rest.end());
      REQUIRE((ids == whole));
    }
  }
}

TEST_CASE("separately encoded words give the library's ids of the whole text") {
  const std::string shared = DSMOE_SOURCE_DIR "/../shared/data/";
  const auto model = shared + "tokenizers/mistral-v1.model";
  const auto book = shared + "tokenizers/botchan.txt";
  if (!std::filesystem::exists(model) || !std::filesystem::exists(book)) {
    WARN("skipped: " << model << " or " << book << " is not there");
    return;
  }
  const auto tokenizer = make_tokenizer(model, {});
  sentencepiece::SentencePieceProcessor library;
  REQUIRE(library.Load(model).ok());
  const auto text = read_file(posix_io(), book, 1 << 20).substr(0, 100'000);
  const std::string odd =
      "  \n a  b\xE2\x96\x81 c \xE2\x96\x81\xE2\x96\x81"
      "d\n\n  e\t f\r\n ";
  for (const auto& input : {text, odd, odd.substr(2), std::string("\n x"), std::string(" ")}) {
    std::vector<int> expected;
    REQUIRE(library.Encode(input, &expected).ok());
    CHECK((tokenizer->encode(input) == expected));
    CHECK((tokenizer->encode(input) == expected));  // now from memory
  }
  CHECK(tokenizer->divide("one two") == 3);
  CHECK(tokenizer->divide("one  ") == 3);
}

TEST_CASE("a tokenizer trained on a sample of the text is deterministic and has all characters") {
  const TemporaryDirectory directory;
  std::string text;
  for (int i = 0; i < 3000; ++i) {
    text += "line " + std::to_string(i * i % 9973) + (i % 5 == 0 ? " of" : " to") +
            " the text<|endoftext|>";
  }
  write_file(posix_io(), directory.file("text.txt"), text + "\xC3\xA9");
  const TrainingTexts texts{
      .paths = {directory.file("text.txt")}, .format = {}, .max_bytes = 20'000};
  const auto first = train_sentencepiece(texts, SentencePieceKind::kChars, 0);
  CHECK((train_sentencepiece(texts, SentencePieceKind::kChars, 0) == first));
  const SentencePieceTokenizer tokenizer(first, "sample");
  CHECK(tokenizer.decode(tokenizer.encode("line 6\xC3\xA9")) == "line 6\xC3\xA9");
}

TEST_CASE("tokenizer files make the same tokenizer again and are refused when exchanged") {
  const TemporaryDirectory directory;
  const auto write = [&](const Tokenizer& tokenizer) {
    for (const auto& file : tokenizer_files(tokenizer)) {
      write_file(posix_io(), directory.file(file.name), file.bytes);
    }
  };
  const auto bpe = trained("train:bpe:300", kText);
  write(*bpe);
  const auto loaded = load_tokenizer(posix_io(), directory.file(""));
  CHECK(loaded->fingerprint() == bpe->fingerprint());
  CHECK(loaded->encode(kText) == bpe->encode(kText));

  const auto description = read_file(posix_io(), directory.file("tokenizer.json"), 1000);
  write(*trained("train:bpe:310", kText));
  write_file(posix_io(), directory.file("tokenizer.json"), description);
  CHECK_THROWS_WITH(load_tokenizer(posix_io(), directory.file("")), Contains("fingerprint"));
  write_file(posix_io(), directory.file("tokenizer.json"), R"({"kind": "words"})");
  CHECK_THROWS_WITH(load_tokenizer(posix_io(), directory.file("")), Contains("'words'"));
}

TEST_CASE("bytes that are not a SentencePiece model are refused") {
  CHECK_THROWS_WITH(SentencePieceTokenizer("", "m"), Contains("m: expected a SentencePiece model"));
  CHECK_THROWS_AS(SentencePieceTokenizer("not a model at all", "m"), Error);
  const auto tokenizer = trained("train:bpe:300", kText);
  const auto& bytes = dynamic_cast<const SentencePieceTokenizer&>(*tokenizer).model_bytes();
  CHECK_THROWS_AS(SentencePieceTokenizer(bytes.substr(0, bytes.size() / 2 + 1), "m"), Error);
  CHECK_THROWS_WITH(trained("train:bpe:200", kText), Contains("above 259"));
  CHECK_THROWS_AS(trained("train:unigram:100000", kText), Error);
}

TEST_CASE("published models give the ids that SentencePiece's own module gives") {
  const std::string shared = DSMOE_SOURCE_DIR "/../shared/data/";
  const auto path = shared + "tokenizers/expected_encodings.json";
  if (!std::filesystem::exists(path)) {
    WARN("skipped: " << path << " is not there");
    return;
  }
  const auto expected = nlohmann::json::parse(read_file(posix_io(), path, 1 << 26));
  int64_t n_cases = 0;
  for (const auto& [name, model] : expected["models"].items()) {
    const auto file = shared + model["file"].get<std::string>();
    if (!std::filesystem::exists(file)) {
      WARN("skipped: " << file << " is not there");
      continue;
    }
    const auto tokenizer = make_tokenizer(file, {});
    CHECK(tokenizer->vocab_size() == model["vocab_size"].get<int64_t>());
    CHECK(tokenizer->bos_id().value_or(-1) == model["bos_id"].get<int32_t>());
    CHECK(tokenizer->eos_id().value_or(-1) == model["eos_id"].get<int32_t>());
    for (const auto& item : model["cases"]) {
      const auto text = item["text"].get<std::string>();
      INFO(name << ": " << text);
      const auto ids = item["ids"].get<std::vector<int32_t>>();
      CHECK(tokenizer->encode(text) == ids);
      ++n_cases;
    }
  }
  CHECK(n_cases >= 55);
}

namespace {

// llama2.c's encoder, from its description: characters or their bytes, then the best pair first.
std::vector<int32_t> encode_as_llama2c(const std::vector<Llama2cToken>& tokens,
                                       const std::string& text) {
  std::map<std::string, int32_t> id_of;
  for (size_t i = 0; i < tokens.size(); ++i) id_of.emplace(tokens[i].text, static_cast<int>(i));
  std::vector<int32_t> ids;
  const std::string whole = text.empty() ? "" : " " + text;
  for (size_t begin = 0, end = 0; begin < whole.size(); begin = end) {
    for (end = begin + 1; end < whole.size() && (whole[end] & 0xC0) == 0x80;) ++end;
    const auto found = id_of.find(whole.substr(begin, end - begin));
    if (found != id_of.end()) {
      ids.push_back(found->second);
    } else {
      for (size_t i = begin; i < end; ++i) ids.push_back(3 + static_cast<uint8_t>(whole[i]));
    }
  }
  for (;;) {
    size_t best = ids.size();
    int32_t merged = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = id_of.find(tokens[ids[i]].text + tokens[ids[i + 1]].text);
      if (found == id_of.end()) continue;
      if (best < ids.size() && tokens[found->second].score <= tokens[merged].score) continue;
      best = i;
      merged = found->second;
    }
    if (best == ids.size()) return ids;
    ids[best] = merged;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

}  // namespace

TEST_CASE("a llama2.c tokenizer becomes a SentencePiece model with the ids of llama2.c") {
  const auto path = shared_data("models/stories260K/tok512.bin");
  const auto cases_path = shared_data("tokenizers/expected_encodings.json");
  if (path.empty() || cases_path.empty()) return;
  const auto tokens = parse_llama2c_tokenizer(read_file(posix_io(), path, 1 << 20), path);
  const auto tokenizer = make_tokenizer(path, {});
  CHECK(tokenizer->bos_id() == 1);
  CHECK(tokenizer->eos_id() == 2);
  CHECK(tokenizer->vocab_size() == 512);

  const auto model = shared_data("models/stories260K/tok512.model");
  const auto published = read_sentencepiece_pieces(read_file(posix_io(), model, 1 << 20));
  const auto made = read_sentencepiece_pieces(
      dynamic_cast<const SentencePieceTokenizer&>(*tokenizer).model_bytes());
  REQUIRE(made.size() == published.size());
  for (size_t i = 0; i < made.size(); ++i) {
    CHECK(made[i].text == published[i].text);
    CHECK(made[i].type == published[i].type);
    CHECK(made[i].score == published[i].score);
  }

  const auto json = nlohmann::json::parse(read_file(posix_io(), cases_path, 1 << 26));
  int same_as_the_model = 0;
  for (const auto& item : json["models"]["tok512"]["cases"]) {
    const auto text = item["text"].get<std::string>();
    INFO(text);
    const auto expected = encode_as_llama2c(tokens, text);
    same_as_the_model += expected == item["ids"].get<std::vector<int32_t>>();
    if (text.find("\xE2\x96\x81") != std::string::npos) continue;  // a blank to SentencePiece
    CHECK(tokenizer->encode(text) == expected);
  }
  // The published model strips blanks: the texts that hold none to strip.
  CHECK(same_as_the_model == 45);
}

}  // namespace dsmoe
