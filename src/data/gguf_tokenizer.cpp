#include "data/gguf_tokenizer.h"

#include <fmt/format.h>

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
  void fill(int64_t vocab_size) {
    while (static_cast<int64_t>(texts.size()) < vocab_size) {
      add(fmt::format("[PAD{}]", texts.size()), 0.0F, SentencePiece::kUnused);
    }
  }
};

void add_common(GgufMetadata& metadata, const Tokenizer& tokenizer, TokenTable table) {
  metadata.emplace_back("tokenizer.ggml.tokens", std::move(table.texts));
  metadata.emplace_back("tokenizer.ggml.token_type", std::move(table.types));
  const auto add_id = [&](const char* key, std::optional<int32_t> id) {
    if (id) metadata.emplace_back(key, static_cast<uint32_t>(*id));
  };
  add_id("tokenizer.ggml.bos_token_id", tokenizer.bos_id());
  add_id("tokenizer.ggml.eos_token_id", tokenizer.eos_id());
  metadata.emplace_back("tokenizer.ggml.add_bos_token", tokenizer.bos_id().has_value());
  metadata.emplace_back("tokenizer.ggml.add_eos_token", false);
}

GgufMetadata from_sentencepiece(const SentencePieceTokenizer& tokenizer, int64_t vocab_size) {
  const auto& model = tokenizer.model_bytes();
  const auto traits = inspect_sentencepiece_model(model, "tokenizer");
  if (!traits.is_bpe || !traits.byte_fallback || traits.has_charsmap ||
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
  table.fill(vocab_size);
  GgufMetadata metadata{
      {"tokenizer.ggml.model", std::string("llama")},
      {"tokenizer.ggml.pre", std::string("default")},
      {"tokenizer.ggml.scores", table.scores},
      {"tokenizer.ggml.add_space_prefix", traits.add_dummy_prefix},
      {"tokenizer.ggml.remove_extra_whitespaces", traits.remove_extra_whitespaces}};
  if (unknown) metadata.emplace_back("tokenizer.ggml.unknown_token_id", *unknown);
  add_common(metadata, tokenizer, std::move(table));
  return metadata;
}

// True if one expression alone cuts the texts, which stay as they are before that.
bool splits_by(const BpeTokenizerFile& file, const std::string& pattern) {
  const auto& splits = file.steps.splits;
  return !file.is_nfc && splits.size() == 1 && splits[0].pattern == pattern &&
         splits[0].behavior == SplitBehavior::kIsolated;
}

// Bytes as the characters that stand for them.
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
    table.add(in_byte_characters(bytes), 0.0F, SentencePiece::kNormal);
  }
  for (const auto& added : file.added) {
    const auto id = static_cast<size_t>(added.id);
    table.texts[id] = added.content;
    table.types[id] = added.special ? SentencePiece::kControl : SentencePiece::kUserDefined;
  }
  std::vector<std::string> merges;
  for (const auto& merge : file.merges) {
    merges.push_back(table.texts[static_cast<size_t>(merge.left)] + " " +
                     table.texts[static_cast<size_t>(merge.right)]);
  }
  table.fill(vocab_size);
  GgufMetadata metadata{{"tokenizer.ggml.model", std::string("gpt2")},
                        {"tokenizer.ggml.pre", std::string(is_llama3 ? "llama-bpe" : "gpt-2")},
                        {"tokenizer.ggml.merges", std::move(merges)}};
  add_common(metadata, tokenizer, std::move(table));
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
