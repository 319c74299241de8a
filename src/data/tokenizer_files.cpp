#include "data/tokenizer_files.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "data/byte_tokenizer.h"
#include "data/hf_bpe_tokenizer.h"
#include "data/sentencepiece_model.h"
#include "data/sentencepiece_tokenizer.h"
#include "formats/json_limits.h"
#include "formats/llama2c_tokenizer.h"

namespace dsmoe {
namespace {

constexpr const char* kDescription = "tokenizer.json";
constexpr const char* kModel = "tokenizer.model";
constexpr const char* kHfBpe = "hf_tokenizer.json";
constexpr uint64_t kMaxDescriptionBytes = 16 << 20;
constexpr uint64_t kMaxModelBytes = 256 << 20;

std::unique_ptr<Tokenizer> train_tokenizer(const TrainingTexts& texts,
                                           SentencePieceKind kind,
                                           int64_t vocab_size,
                                           const std::string& spec) {
  if (texts.paths.empty()) {
    throw Error(fmt::format("tokenizer '{}': expected texts to train on", spec));
  }
  return std::make_unique<SentencePieceTokenizer>(train_sentencepiece(texts, kind, vocab_size),
                                                  spec);
}

// The N of `train:bpe:N` after its prefix.
int64_t parse_vocab_size(const std::string& spec, size_t at) {
  int64_t vocab_size = 0;
  const char* end = spec.data() + spec.size();
  const auto parsed = std::from_chars(spec.data() + at, end, vocab_size);
  if (parsed.ec != std::errc() || parsed.ptr != end || vocab_size < 1 || vocab_size > 1 << 24) {
    throw Error(fmt::format("tokenizer '{}': expected a vocabulary size after the last ':'", spec));
  }
  return vocab_size;
}

// An id of an old description of a byte-level BPE tokenizer, where it has one.
std::optional<int32_t> id_at(const nlohmann::json& record, const char* key) {
  const auto found = record.find(key);
  if (found == record.end() || !found->is_number_unsigned()) return std::nullopt;
  return found->get<int32_t>();
}

// A description without `special_tokens` added BOS to every text.
std::unique_ptr<Tokenizer> make_old(const nlohmann::json& record,
                                    bool is_bpe,
                                    std::string bytes,
                                    const std::string& model_path) {
  if (!is_bpe) return std::make_unique<SentencePieceTokenizer>(std::move(bytes), model_path);
  return std::make_unique<HfBpeTokenizer>(
      std::move(bytes), model_path, id_at(record, "bos_id"), id_at(record, "eos_id"));
}

std::unique_ptr<Tokenizer> make_described(const nlohmann::json& record,
                                          const std::string& path,
                                          bool is_bpe,
                                          std::string bytes,
                                          const std::string& model_path) {
  const auto found = record.find("special_tokens");
  if (found == record.end()) return make_old(record, is_bpe, std::move(bytes), model_path);
  auto special = special_tokens_from_json(*found, path);
  if (is_bpe) {
    return std::make_unique<HfBpeTokenizer>(std::move(bytes), model_path, std::move(special));
  }
  return std::make_unique<SentencePieceTokenizer>(std::move(bytes), model_path, std::move(special));
}

std::string text_at(const nlohmann::json& record, const char* key, const std::string& path) {
  const auto found = record.is_object() ? record.find(key) : record.end();
  if (found == record.end() || !found->is_string()) {
    throw Error(fmt::format("{}: expected a text under the key '{}'", path, key));
  }
  return found->get<std::string>();
}

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec,
                                          const std::vector<std::string>& inputs,
                                          const TextFormat& format) {
  using enum SentencePieceKind;
  constexpr std::string_view kTrainBpe = "train:bpe:";
  constexpr std::string_view kTrainUnigram = "train:unigram:";
  const TrainingTexts texts{.paths = inputs, .format = format};
  if (spec == "bytes") return std::make_unique<ByteTokenizer>();
  if (spec == "chars") return train_tokenizer(texts, kChars, 0, spec);
  if (spec.starts_with(kTrainBpe)) {
    return train_tokenizer(texts, kBpe, parse_vocab_size(spec, kTrainBpe.size()), spec);
  }
  if (spec.starts_with(kTrainUnigram)) {
    return train_tokenizer(texts, kUnigram, parse_vocab_size(spec, kTrainUnigram.size()), spec);
  }
  if (spec.ends_with(".json")) return read_hf_tokenizer(posix_io(), spec);
  if (spec.ends_with(".bin")) {
    const auto tokens = parse_llama2c_tokenizer(read_file(posix_io(), spec, kMaxModelBytes), spec);
    return std::make_unique<SentencePieceTokenizer>(sentencepiece_model_from(tokens), spec);
  }
  if (!spec.ends_with(".model")) {
    throw Error(
        fmt::format("tokenizer '{}': expected bytes, chars, train:bpe:N, train:unigram:N or the "
                    "path of a .model, .json or llama2.c .bin file",
                    spec));
  }
  return read_hf_sentencepiece(posix_io(), spec);
}

std::vector<TokenizerFile> tokenizer_files(const Tokenizer& tokenizer) {
  nlohmann::json record;
  if (dynamic_cast<const ByteTokenizer*>(&tokenizer) != nullptr) {
    record["kind"] = "bytes";
    return {{kDescription, record.dump() + "\n"}};
  }
  if (const auto* bpe = dynamic_cast<const HfBpeTokenizer*>(&tokenizer)) {
    record["kind"] = "hf-bpe";
    record["fingerprint"] = tokenizer.fingerprint();
    record["special_tokens"] = special_tokens_to_json(bpe->beyond_file());
    return {{kDescription, record.dump() + "\n"}, {kHfBpe, bpe->json()}};
  }
  const auto* sentencepiece = dynamic_cast<const SentencePieceTokenizer*>(&tokenizer);
  if (sentencepiece == nullptr) {
    throw Error(
        fmt::format("tokenizer {}: expected a kind that has files", tokenizer.fingerprint()));
  }
  record["kind"] = "sentencepiece";
  record["fingerprint"] = tokenizer.fingerprint();
  record["special_tokens"] = special_tokens_to_json(sentencepiece->special_tokens());
  return {{kDescription, record.dump() + "\n"}, {kModel, sentencepiece->model_bytes()}};
}

std::unique_ptr<Tokenizer> load_tokenizer(Io& io, const std::string& directory) {
  const std::string path = directory + "/" + kDescription;
  const auto record =
      parse_json(read_file(io, path, kMaxDescriptionBytes), path, kMaxDescriptionBytes);
  const std::string kind = text_at(record, "kind", path);
  if (kind == "bytes") return std::make_unique<ByteTokenizer>();
  if (kind != "sentencepiece" && kind != "hf-bpe") {
    throw Error(
        fmt::format("{}: expected kind bytes, sentencepiece or hf-bpe, got '{}'", path, kind));
  }
  const bool is_bpe = kind == "hf-bpe";
  const std::string model_path = directory + "/" + (is_bpe ? kHfBpe : kModel);
  auto bytes = read_file(io, model_path, kMaxModelBytes);
  auto tokenizer = make_described(record, path, is_bpe, std::move(bytes), model_path);
  const std::string fingerprint = text_at(record, "fingerprint", path);
  if (fingerprint != tokenizer->fingerprint()) {
    throw Error(fmt::format("{}: expected the fingerprint {} of tokenizer.json, got {}",
                            model_path,
                            fingerprint,
                            tokenizer->fingerprint()));
  }
  return tokenizer;
}

}  // namespace dsmoe
