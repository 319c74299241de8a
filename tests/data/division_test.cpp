// Texts encoded in parts: every tokenizer gives the ids of the whole and holds only a window.
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <random>

#include "common/error.h"
#include "data/byte_tokenizer.h"
#include "data/hf_bpe_tokenizer.h"
#include "data/parallel_encoder.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/utf8.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;
using Json = nlohmann::json;

// Text that is hard to cut: blanks of all kinds, marks that compose, rules over several characters,
// unknown ones.
const std::vector<std::string> kHard = {" ",
                                        "  ",
                                        "\n",
                                        "\r\n",
                                        "\t",
                                        "\n\n",
                                        "\xC2\xA0",
                                        "\xE3\x80\x80",
                                        "\xE2\x80\x8B",
                                        "\xE2\x96\x81",
                                        "\xC2\xA8",
                                        "\xCC\x81",
                                        "e\xCC\x81",
                                        "\xCC\xA3\xCC\x87",
                                        "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8",
                                        "\xE1\x85\xA1",
                                        "\xEF\xAC\x81",
                                        "\xC2\xBD",
                                        "\xE2\x80\xA6",
                                        "\xF0\x9F\x8C\x8D",
                                        "\xEF\xBC\xA1",
                                        "\xE4\xB8\xAD\xE6\x96\x87",
                                        "\xE3\x80\x82",
                                        "\xE3\x81\x8B\xE3\x82\x99",
                                        "123",
                                        "4",
                                        "'s",
                                        "'S",
                                        "<|end|>",
                                        "<|en",
                                        "<|end|>>",
                                        "|>",
                                        "<sym>",
                                        "<sy",
                                        "!?",
                                        "\x01",
                                        "==",
                                        "aaaa"};

std::string random_text(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  const std::vector<std::string> words = {
      "the", "of", "and", "river", "house", "a", "was", "in", "her", "that", "speak", "any"};
  std::string text;
  while (text.size() < size) {
    const bool is_hard = random() % 3 == 0;
    text += is_hard ? kHard[random() % kHard.size()] : words[random() % words.size()];
    if (random() % 2 == 0) text += ' ';
  }
  return text;
}

std::string golden_json(const std::string& kind) {
  return read_file(
      posix_io(), DSMOE_SOURCE_DIR "/tests/golden/bpe_" + kind + "/tokenizer.json", 1 << 20);
}

std::unique_ptr<Tokenizer> hf_tokenizer(const std::string& kind, const Json& changes) {
  auto json = Json::parse(golden_json(kind));
  for (const auto& [path, value] : changes.items()) json[Json::json_pointer(path)] = value;
  for (const std::string content : {"<|end|>", "<|end|>>"}) {
    const auto id = json["model"]["vocab"].size();
    json["added_tokens"].push_back(
        {{"id", id}, {"content", content}, {"special", false}, {"normalized", false}});
    json["model"]["vocab"][content] = id;
  }
  // Ids of added tokens that the vocabulary lacks follow it.
  size_t next = json["model"]["vocab"].size();
  for (auto& token : json["added_tokens"]) {
    if (!json["model"]["vocab"].contains(token["content"])) token["id"] = next++;
  }
  size_t id = 0;
  for (auto& token : json["added_tokens"]) json["model"]["vocab"].erase(token["content"]);
  for (auto& item : json["model"]["vocab"].items()) item.value() = id++;
  for (auto& token : json["added_tokens"]) token["id"] = id++;
  return std::make_unique<HfBpeTokenizer>(json.dump(), kind, std::nullopt, std::nullopt);
}

Json split(const std::string& pattern, const std::string& behavior = "Isolated") {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", behavior},
          {"invert", false}};
}

Json sequence(const std::vector<Json>& steps) {
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

Json byte_level(bool use_regex, bool add_prefix_space = false) {
  return {{"type", "ByteLevel"}, {"use_regex", use_regex}, {"add_prefix_space", add_prefix_space}};
}

using TrainerOptions = std::unordered_map<std::string, std::string>;

class Sentences final : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& sentences) : sentences_(sentences) {}
  bool done() const override { return next_ >= sentences_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return sentences_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& sentences_;
  size_t next_ = 0;
};

std::string trained_model(const TrainerOptions& changes) {
  TrainerOptions options = {{"minloglevel", "2"},
                            {"num_threads", "1"},
                            {"vocab_size", "400"},
                            {"hard_vocab_limit", "false"},
                            {"user_defined_symbols", "<sym>"},
                            {"character_coverage", "0.999"}};
  for (const auto& [key, value] : changes) options[key] = value;
  std::vector<std::string> sentences;
  for (uint32_t i = 0; i < 400; ++i) {
    for (std::string line = random_text(200, i); !line.empty();) {
      const auto end = std::min(line.find('\n'), line.size());
      if (end > 0) sentences.push_back(line.substr(0, end));
      line.erase(0, end + 1);
    }
  }
  Sentences iterator(sentences);
  std::string model;
  sentencepiece::SetRandomGeneratorSeed(1);
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &iterator, &model);
  INFO(status.ToString());
  REQUIRE(status.ok());
  return model;
}

struct Case {
  std::string name;
  std::unique_ptr<Tokenizer> tokenizer;
  std::string model;       // of SentencePiece
  bool is_divided = true;  // some text can be cut
};

// Where a piece may hold a blank after other text, or ends with one, no place is certain.
bool is_divided(const std::string& name) {
  return name != "word" && name.find("over words") == name.npos && name.find("suffix") == name.npos;
}

std::vector<Case> sentencepiece_cases() {
  const std::vector<std::pair<std::string, TrainerOptions>> options = {
      {"unigram, default normalizer", {}},
      {"unigram, bytes", {{"byte_fallback", "true"}}},
      {"unigram, no prefix", {{"add_dummy_prefix", "false"}}},
      {"unigram, blanks kept", {{"remove_extra_whitespaces", "false"}}},
      {"unigram, blanks kept, no prefix",
       {{"remove_extra_whitespaces", "false"}, {"add_dummy_prefix", "false"}}},
      {"unigram, nfkc", {{"normalization_rule_name", "nfkc"}}},
      {"unigram, identity", {{"normalization_rule_name", "identity"}}},
      {"unigram, pieces over words", {{"split_by_whitespace", "false"}}},
      {"bpe, default normalizer", {{"model_type", "bpe"}}},
      {"bpe, bytes", {{"model_type", "bpe"}, {"byte_fallback", "true"}}},
      {"bpe, blanks kept, nfkc_cf",
       {{"model_type", "bpe"},
        {"remove_extra_whitespaces", "false"},
        {"normalization_rule_name", "nmt_nfkc_cf"}}},
      {"bpe, pieces over words, bytes",
       {{"model_type", "bpe"}, {"split_by_whitespace", "false"}, {"byte_fallback", "true"}}},
      {"bpe, identity, bytes",
       {{"model_type", "bpe"},
        {"normalization_rule_name", "identity"},
        {"remove_extra_whitespaces", "false"},
        {"byte_fallback", "true"}}},
      {"bpe, blank as suffix",
       {{"model_type", "bpe"}, {"treat_whitespace_as_suffix", "true"}, {"byte_fallback", "true"}}},
      {"char", {{"model_type", "char"}}},
      {"char, identity, blanks kept",
       {{"model_type", "char"},
        {"normalization_rule_name", "identity"},
        {"remove_extra_whitespaces", "false"}}},
      {"word", {{"model_type", "word"}}},
  };
  std::vector<Case> cases;
  for (const auto& [name, changes] : options) {
    auto model = trained_model(changes);
    auto tokenizer = std::make_unique<SentencePieceTokenizer>(model, name);
    cases.push_back({name, std::move(tokenizer), std::move(model), is_divided(name)});
  }
  return cases;
}

std::vector<Case> hf_cases() {
  std::vector<Case> cases;
  const auto add = [&](const std::string& name,
                       const std::string& kind,
                       const Json& changes,
                       bool is_divided = true) {
    cases.push_back({name, hf_tokenizer(kind, changes), "", is_divided});
  };
  const Json nfc = {{"type", "NFC"}};
  add("gpt2", "gpt2", Json::object());
  add("gpt2, prefix", "gpt2", {{"/pre_tokenizer", byte_level(true, true)}});
  add("gpt2, NFC", "gpt2", {{"/normalizer", nfc}});
  add("llama3", "llama3", Json::object());
  add("llama3, NFC", "llama3", {{"/normalizer", nfc}});
  add("one piece", "gpt2", {{"/pre_tokenizer", byte_level(false)}});
  add("one piece, prefix", "gpt2", {{"/pre_tokenizer", byte_level(false, true)}});
  add("splits one after another",
      "gpt2",
      {{"/pre_tokenizer",
        sequence({split("[\\r\\n]"),
                  split("\\s?\\p{L}+"),
                  split("\\s?\\p{P}+"),
                  {{"type", "Digits"}, {"individual_digits", true}},
                  byte_level(false)})}});
  add("digits, NFC",
      "gpt2",
      {{"/normalizer", nfc},
       {"/pre_tokenizer",
        sequence({{{"type", "Digits"}, {"individual_digits", false}}, byte_level(true)})}});
  add("prefix of each piece",
      "gpt2",
      {{"/pre_tokenizer", sequence({split("\\p{N}{1,3}"), byte_level(true, true)})}});
  add("white space removed",
      "gpt2",
      {{"/pre_tokenizer", sequence({split("\\s+", "Removed"), byte_level(false)})}},
      false);
  add("look-behind",
      "gpt2",
      {{"/pre_tokenizer", sequence({split("(?<=a)b|\\s+"), byte_level(false)})}},
      false);
  return cases;
}

Ids in_two(const Tokenizer& tokenizer, std::string_view text, size_t cut) {
  auto ids = tokenizer.encode(text.substr(0, cut));
  const auto rest = cut == 0 ? Ids() : tokenizer.encode_rest(text.substr(cut));
  if (cut == 0) return tokenizer.encode(text);
  ids.insert(ids.end(), rest.begin(), rest.end());
  return ids;
}

// Divides a text that ends anywhere; the tokenizer has not read the text after the end.
void check_divided_anywhere(const Case& item, const std::string& text, size_t step) {
  const auto whole = item.tokenizer->encode(text);
  size_t furthest = 0;
  for (size_t size = 1; size < text.size(); size += step) {
    if (!begins_character(text[size])) continue;
    const size_t cut = item.tokenizer->divide(std::string_view(text).substr(0, size));
    INFO(item.name << ", " << size << " bytes seen, cut at " << cut
                   << ", there: " << text.substr(std::max<size_t>(cut, 12) - 12, 24));
    REQUIRE(cut <= size);
    REQUIRE(begins_character(text[cut]));
    if (cut == furthest) continue;  // checked
    furthest = std::max(furthest, cut);
    REQUIRE((in_two(*item.tokenizer, text, cut) == whole));
  }
  INFO(item.name);
  if (item.is_divided) CHECK(furthest > text.size() / 2);
}

TEST_CASE("HfBpeTokenizer: a text divided anywhere gives the ids of the whole") {
  for (const auto& item : hf_cases()) {
    for (uint32_t seed = 0; seed < 6; ++seed) {
      check_divided_anywhere(item, random_text(1500, seed), 1);
    }
  }
}

TEST_CASE("SentencePieceTokenizer: a text divided anywhere gives the ids of the whole") {
  for (const auto& item : sentencepiece_cases()) {
    for (uint32_t seed = 0; seed < 4; ++seed) {
      check_divided_anywhere(item, random_text(1500, seed + 100), 1);
    }
  }
}

double score_of(const sentencepiece::SentencePieceProcessor& library, const Ids& ids) {
  double score = 0;
  for (const int32_t id : ids) score += library.GetScore(id);
  return score;
}

// Of segmentations of the same score the library takes any: its sums over the whole text round.
TEST_CASE("SentencePieceTokenizer: separate units give the library's ids of the whole text") {
  for (const auto& item : sentencepiece_cases()) {
    sentencepiece::SentencePieceProcessor library;
    REQUIRE(library.LoadFromSerializedProto(item.model).ok());
    const bool has_ties = item.name.starts_with("unigram");
    int n_alike = 0;
    for (uint32_t seed = 0; seed < 200; ++seed) {
      const auto text = random_text(1 + seed, seed + 1000);
      Ids expected;
      REQUIRE(library.Encode(text, &expected).ok());
      const auto own = item.tokenizer->encode(text);
      INFO(item.name << ": " << text);
      if (has_ties) {
        REQUIRE(own.size() == expected.size());
        REQUIRE(score_of(library, own) == Approx(score_of(library, expected)).epsilon(1e-6));
      } else {
        REQUIRE((own == expected));
      }
      n_alike += own == expected;
    }
    INFO(item.name);
    CHECK(n_alike >= 190);
  }
}

// Feeds a document as text_reader does and returns the longest text that the tokenizer had at once.
size_t longest_held(const Tokenizer& tokenizer, const std::string& unit, size_t size, Ids* ids) {
  constexpr size_t kPart = 1 << 20;
  ParallelEncoder encoder(tokenizer, 1, [&](const Ids& part, bool, int64_t) {
    if (ids != nullptr) ids->insert(ids->end(), part.begin(), part.end());
  });
  std::string part;
  for (size_t given = 0; given < size;) {
    while (part.size() < kPart) part += unit;
    encoder.add({.text = part, .is_first = given == 0, .is_last = false});
    given += part.size();
    part.clear();
  }
  encoder.add({.text = "end", .is_last = true});
  encoder.finish();
  return encoder.longest_text_bytes();
}

TEST_CASE("ParallelEncoder: every tokenizer holds a long document in windows") {
  constexpr size_t kDocument = 2 << 20;
  constexpr size_t kWindow = 5 << 18;  // a part, and the rest of the one before it
  std::vector<Case> cases;
  cases.push_back({"bytes", std::make_unique<ByteTokenizer>(), "", true});
  for (auto* kind : {&hf_cases, &sentencepiece_cases}) {
    for (auto& item : (*kind)()) cases.push_back(std::move(item));
  }
  for (const auto& item : cases) {
    INFO(item.name);
    const std::string line = "the river was in her house 123, and that\n";
    if (item.is_divided) {
      CHECK(longest_held(*item.tokenizer, line, kDocument, nullptr) <= kWindow);
      // One line, and blanks in it. A blank before each piece leaves only the digits as places.
      if (item.name == "prefix of each piece") continue;
      CHECK(longest_held(*item.tokenizer, "the river was in her ", kDocument, nullptr) <= kWindow);
    } else {
      CHECK_THROWS_WITH(longest_held(*item.tokenizer, line, 33 << 20, nullptr),
                        Contains("separate the documents") && Contains("16777216"));
    }
  }
}

TEST_CASE("ParallelEncoder: a document without blanks is held in windows or refused") {
  const auto gpt2 = hf_tokenizer("gpt2", Json::object());
  const std::string chinese = "\xE4\xB8\xAD\xE6\x96\x87\xE3\x80\x82";  // a full stop after two
  CHECK(longest_held(*gpt2, chinese, 2 << 20, nullptr) <= 5 << 18);
  CHECK_THROWS_WITH(longest_held(*gpt2, "a", 33 << 20, nullptr),
                    Contains("separate the documents"));
}

TEST_CASE("ParallelEncoder: parts of a long document give the ids of the whole") {
  const SentencePieceTokenizer unigram(trained_model({}), "unigram");
  const auto llama3 = hf_tokenizer("llama3", {{"/normalizer", {{"type", "NFC"}}}});
  const auto unit = random_text(3000, 7);
  for (const Tokenizer* tokenizer : std::vector<const Tokenizer*>{&unigram, llama3.get()}) {
    Ids parts;
    longest_held(*tokenizer, unit, 2 << 20, &parts);
    std::string text;
    for (size_t given = 0; given < 2 << 20;) {
      std::string part;
      while (part.size() < 1 << 20) part += unit;
      given += part.size();
      text += part;
    }
    Ids whole;
    if (tokenizer->bos_id()) whole.push_back(*tokenizer->bos_id());
    const auto ids = tokenizer->encode(text + "end");
    whole.insert(whole.end(), ids.begin(), ids.end());
    if (tokenizer->eos_id()) whole.push_back(*tokenizer->eos_id());
    CHECK((parts == whole));
  }
}

TEST_CASE("read_text_parts: a long line of JSON is given in parts of a megabyte") {
  const TemporaryDirectory directory;
  std::string text;
  while (text.size() < 3'000'000) text += "\xE4\xB8\xAD a ";
  write_file(posix_io(), directory.file("a.jsonl"), Json{{"text", text}}.dump() + "\n");
  std::string joined;
  size_t longest = 0;
  int n_documents = 0;
  read_text_parts(posix_io(), directory.file("a.jsonl"), {}, [&](const TextPart& part) {
    CHECK(part.is_first == joined.empty());
    CHECK(find_invalid_utf8(part.text) == std::string_view::npos);
    joined += part.text;
    longest = std::max(longest, part.text.size());
    n_documents += part.is_last;
  });
  CHECK((joined == text));
  CHECK(n_documents == 1);
  CHECK(longest <= 1 << 20);
}

}  // namespace
}  // namespace dsmoe
