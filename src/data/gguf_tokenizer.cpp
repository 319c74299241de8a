#include "data/gguf_tokenizer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>

#include "common/log.h"
#include "data/hf_bpe_tokenizer.h"
#include "data/sentencepiece_model.h"
#include "data/sentencepiece_tokenizer.h"

namespace dsmoe {
namespace {

constexpr const char* kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// The format's token types are numbered as SentencePiece's.
struct TokenTable {
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<int32_t> types;

  void add(std::string text, float score, uint32_t type) {
    texts.push_back(std::move(text));
    scores.push_back(score);
    types.push_back(static_cast<int32_t>(type));
  }
  // Added tokens replace the pieces of their ids; gaps between them are unused.
  void set_added(const SpecialTokens& special) {
    constexpr float kScore = -1000.0F;  // no piece merges into them
    for (const auto& token : special.added) {
      fill(token.id + 1);
      const auto index = static_cast<size_t>(token.id);
      texts[index] = token.content;
      types[index] = token.special ? SentencePiece::kControl : SentencePiece::kUserDefined;
      if (types[index] == SentencePiece::kUserDefined) scores[index] = kScore;
    }
  }
  void fill(int64_t vocab_size) {
    while (static_cast<int64_t>(texts.size()) < vocab_size) {
      add(fmt::format("[PAD{}]", texts.size()), 0.0F, SentencePiece::kUnused);
    }
  }
};

void add_tokens(GgufMetadata& metadata, const Tokenizer& tokenizer, TokenTable table) {
  metadata.emplace_back("tokenizer.ggml.tokens", std::move(table.texts));
  metadata.emplace_back("tokenizer.ggml.token_type", std::move(table.types));
  const auto add_id = [&](const char* key, std::optional<int32_t> id) {
    if (id) metadata.emplace_back(key, static_cast<uint32_t>(*id));
  };
  const auto& special = tokenizer.special_tokens();
  add_id("tokenizer.ggml.bos_token_id", special.bos);
  // The format has three names for tokens that end a text; llama.cpp stops at each of them.
  constexpr const char* kEnds[] = {
      "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
  const size_t n_ends = std::min(special.eos.size(), std::size(kEnds));
  for (size_t i = 0; i < n_ends; ++i) add_id(kEnds[i], special.eos[i]);
  if (special.eos.size() > std::size(kEnds)) {
    log_warning(
        fmt::format("gguf: {} tokens end a text; the format names {}, the ids {} are lost",
                    special.eos.size(),
                    std::size(kEnds),
                    fmt::join(special.eos.begin() + std::size(kEnds), special.eos.end(), ", ")));
  }
  add_id("tokenizer.ggml.padding_token_id", special.pad);
  metadata.emplace_back("tokenizer.ggml.add_bos_token", special.adds_bos);
  metadata.emplace_back("tokenizer.ggml.add_eos_token", special.adds_eos);
}

GgufMetadata from_sentencepiece(const SentencePieceTokenizer& tokenizer, int64_t vocab_size) {
  const auto& model = tokenizer.model_bytes();
  const auto traits = inspect_sentencepiece_model(model, "tokenizer");
  if (!traits.is_bpe || !traits.byte_fallback || !traits.charsmap.empty() ||
      traits.whitespace_is_suffix || !traits.escape_whitespaces) {
    return {};
  }
  TokenTable table;
  std::optional<uint32_t> unknown;
  for (auto& piece : read_sentencepiece_pieces(model)) {
    if (piece.type == SentencePiece::kUnknown) {
      unknown = static_cast<uint32_t>(table.texts.size());
    }
    table.add(std::move(piece.text), piece.score, piece.type);
  }
  auto special = tokenizer.special_tokens();
  if (unknown) {  // the format has a separate type for it
    std::erase_if(special.added, [&](const AddedToken& token) {
      return token.id == static_cast<int32_t>(*unknown);
    });
  }
  table.set_added(special);
  table.fill(vocab_size);
  GgufMetadata metadata{
      {"tokenizer.ggml.model", std::string("llama")},
      {"tokenizer.ggml.pre", std::string("default")},
      {"tokenizer.ggml.scores", table.scores},
      {"tokenizer.ggml.add_space_prefix", traits.add_dummy_prefix},
      {"tokenizer.ggml.remove_extra_whitespaces", traits.remove_extra_whitespaces}};
  if (unknown) metadata.emplace_back("tokenizer.ggml.unknown_token_id", *unknown);
  add_tokens(metadata, tokenizer, std::move(table));
  return metadata;
}

// Returns whether a single expression cuts the texts, without a change of the texts before.
bool splits_by(const BpeTokenizerFile& file, const std::string& pattern) {
  const auto& splits = file.steps.splits;
  return !file.is_nfc && splits.size() == 1 && splits[0].pattern == pattern &&
         splits[0].behavior == SplitBehavior::kIsolated;
}

// Returns bytes as the characters that represent them.
std::string in_byte_characters(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) text += byte_characters()[static_cast<unsigned char>(byte)];
  return text;
}

GgufMetadata from_byte_level_bpe(const HfBpeTokenizer& tokenizer, int64_t vocab_size) {
  const auto& file = tokenizer.file();
  const bool is_llama3 = splits_by(file, kLlama3) && file.ignore_merges;
  const bool is_gpt2 = splits_by(file, kGpt2) && !file.ignore_merges;
  if ((!is_llama3 && !is_gpt2) || file.steps.add_prefix_space) return {};
  TokenTable table;
  for (const auto& bytes : file.token_bytes) {
    if (bytes.empty()) {
      table.fill(static_cast<int64_t>(table.texts.size()) + 1);
    } else {
      table.add(in_byte_characters(bytes), 0.0F, SentencePiece::kNormal);
    }
  }
  table.set_added(tokenizer.special_tokens());
  std::vector<std::string> merges;
  for (const auto& merge : file.merges) {
    merges.push_back(table.texts[static_cast<size_t>(merge.left)] + " " +
                     table.texts[static_cast<size_t>(merge.right)]);
  }
  table.fill(vocab_size);
  GgufMetadata metadata{{"tokenizer.ggml.model", std::string("gpt2")},
                        {"tokenizer.ggml.pre", std::string(is_llama3 ? "llama-bpe" : "gpt-2")},
                        {"tokenizer.ggml.merges", std::move(merges)}};
  add_tokens(metadata, tokenizer, std::move(table));
  return metadata;
}

}  // namespace

GgufMetadata gguf_tokenizer(const Tokenizer& tokenizer, int64_t vocab_size) {
  if (const auto* pieces = dynamic_cast<const SentencePieceTokenizer*>(&tokenizer)) {
    return from_sentencepiece(*pieces, vocab_size);
  }
  if (const auto* bpe = dynamic_cast<const HfBpeTokenizer*>(&tokenizer)) {
    return from_byte_level_bpe(*bpe, vocab_size);
  }
  return {};
}

}  // namespace dsmoe
