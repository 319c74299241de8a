#include <fmt/format.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <limits>
#include <unordered_map>
#include <utility>

#include "common/error.h"
#include "common/random_seed.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/text_reader.h"

namespace dsmoe {
namespace {

constexpr int64_t kReservedPieces = 256 + 3;               // bytes; unknown, BOS, EOS
constexpr size_t kMaxSentenceBytes = 4000;                 // the trainer skips above 4192
constexpr std::string_view kTrainerMark = "\xE2\x96\x85";  // U+2585; the trainer skips such lines

struct Hash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using CharacterCounts = std::unordered_map<std::string, int64_t, Hash, std::equal_to<>>;

std::string_view first_character(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  return text.substr(0, lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4);
}

void count_characters(std::string_view text, CharacterCounts& counts) {
  while (!text.empty()) {
    const auto character = first_character(text);
    text.remove_prefix(character.size());
    const auto found = counts.find(character);
    if (found != counts.end()) {
      ++found->second;
    } else {
      counts.emplace(character, 1);
    }
  }
}

// Text of the sample that is without a gap.
struct SampledText {
  uint64_t index = 0;
  std::string text;
  bool is_last = false;
};

// Keeps an even sample of the parts of all documents: the parts with a random number below a bound.
// Halves the bound whenever they become too many.
class TextSample {
 public:
  explicit TextSample(size_t max_bytes) : max_bytes_(max_bytes) {}

  void add(const TextPart& part) {
    const uint64_t index = next_index_++;
    if (mix_bits(index) > bound_) return;
    texts_.push_back({index, std::string(part.text), part.is_last});
    n_bytes_ += part.text.size();
    while (n_bytes_ > max_bytes_ && bound_ > 0) thin_out();
  }
  bool is_whole() const { return bound_ == std::numeric_limits<uint64_t>::max(); }
  const std::vector<SampledText>& texts() const { return texts_; }

 private:
  void thin_out() {
    bound_ /= 2;
    std::erase_if(texts_, [&](const SampledText& text) { return mix_bits(text.index) > bound_; });
    n_bytes_ = 0;
    for (const auto& text : texts_) n_bytes_ += text.text.size();
  }

  size_t max_bytes_;
  uint64_t bound_ = std::numeric_limits<uint64_t>::max();
  uint64_t next_index_ = 0;
  size_t n_bytes_ = 0;
  std::vector<SampledText> texts_;
};

// Returns the most frequent characters: as many as leave half of the free pieces for longer ones.
CharacterCounts frequent_characters(const CharacterCounts& counts, int64_t vocab_size) {
  if (vocab_size <= kReservedPieces) {
    throw Error(fmt::format("sentencepiece training: expected a vocabulary above {}, got {}",
                            kReservedPieces,
                            vocab_size));
  }
  std::vector<std::pair<std::string_view, int64_t>> sorted(counts.begin(), counts.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  const auto n_kept = static_cast<size_t>((vocab_size - kReservedPieces + 1) / 2);
  sorted.resize(std::min(sorted.size(), n_kept));
  return {sorted.begin(), sorted.end()};
}

// Cuts texts into the sentences that the trainer sees: at line ends, at characters that get no
// piece, and where one would be too long, at a blank if there is one.
class SentenceCutter {
 public:
  explicit SentenceCutter(const CharacterCounts& kept) : kept_(kept) {}

  std::vector<std::string> cut(const std::vector<SampledText>& texts) {
    for (size_t i = 0; i < texts.size(); ++i) {
      for (std::string_view rest = texts[i].text; !rest.empty();) {
        const auto character = first_character(rest);
        rest.remove_prefix(character.size());
        add(character);
      }
      const bool goes_on =
          !texts[i].is_last && i + 1 < texts.size() && texts[i + 1].index == texts[i].index + 1;
      if (!goes_on) finish(sentence_.size());
    }
    return std::move(sentences_);
  }

 private:
  void add(std::string_view character) {
    if (character == "\n" || character == "\t" || character[0] == '\0' ||
        character == kTrainerMark || !kept_.contains(character)) {
      finish(sentence_.size());
      return;
    }
    if (sentence_.size() + character.size() > kMaxSentenceBytes) {
      const size_t blank = sentence_.rfind(' ');
      finish(blank == 0 || blank == sentence_.npos ? sentence_.size() : blank);
    }
    sentence_ += character;
  }
  void finish(size_t size) {
    if (size > 0) sentences_.push_back(sentence_.substr(0, size));
    sentence_.erase(0, size);
  }

  const CharacterCounts& kept_;
  std::string sentence_;
  std::vector<std::string> sentences_;
};

// Every character once, so that a sample leaves none out.
void add_characters(const CharacterCounts& kept, std::vector<std::string>& sentences) {
  std::vector<std::string> characters;
  for (const auto& [character, count] : kept) characters.push_back(character);
  std::sort(characters.begin(), characters.end());
  std::vector<SampledText> texts;
  for (auto& character : characters) texts.push_back({0, std::move(character), true});
  const auto more = SentenceCutter(kept).cut(texts);
  sentences.insert(sentences.end(), more.begin(), more.end());
}

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

using TrainerOptions = std::unordered_map<std::string, std::string>;

TrainerOptions common_options() {
  return {{"minloglevel", "2"},
          {"num_threads", "1"},
          {"normalization_rule_name", "identity"},
          {"add_dummy_prefix", "false"},
          {"remove_extra_whitespaces", "false"},
          {"character_coverage", "1.0"}};
}

TrainerOptions piece_options(SentencePieceKind kind, int64_t vocab_size) {
  TrainerOptions options = common_options();
  options["model_type"] = kind == SentencePieceKind::kBpe ? "bpe" : "unigram";
  options["vocab_size"] = std::to_string(vocab_size);
  options["byte_fallback"] = "true";
  options["allow_whitespace_only_pieces"] = "true";
  return options;
}

// Sentences hold no line feeds and tabs: adds their pieces here.
TrainerOptions character_options(const CharacterCounts& counts) {
  TrainerOptions options = common_options();
  options["model_type"] = "char";
  options["use_all_vocab"] = "true";
  std::string symbols = counts.contains("\n") ? "\n" : "";
  if (counts.contains("\t")) symbols += symbols.empty() ? "\t" : ",\t";
  if (!symbols.empty()) options["user_defined_symbols"] = symbols;
  return options;
}

}  // namespace

std::string train_sentencepiece(const TrainingTexts& texts,
                                SentencePieceKind kind,
                                int64_t vocab_size) {
  TextSample sample(texts.max_bytes);
  CharacterCounts counts;
  for (const auto& path : texts.paths) {
    read_text_parts(posix_io(), path, texts.format, [&](const TextPart& part) {
      count_characters(part.text, counts);
      sample.add(part);
    });
  }
  const bool is_chars = kind == SentencePieceKind::kChars;
  const auto kept = is_chars ? counts : frequent_characters(counts, vocab_size);
  auto sentences = SentenceCutter(kept).cut(sample.texts());
  if (!sample.is_whole()) add_characters(kept, sentences);
  if (sentences.empty()) throw Error("sentencepiece training: expected text, got none");
  Sentences iterator(sentences);
  const auto options = is_chars ? character_options(counts) : piece_options(kind, vocab_size);
  std::string model_bytes;
  sentencepiece::SetRandomGeneratorSeed(1);
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &iterator, &model_bytes);
  if (!status.ok()) throw Error("sentencepiece training: " + status.ToString());
  return model_bytes;
}

}  // namespace dsmoe
