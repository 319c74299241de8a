// Tokenizers of a Hugging Face directory: the vocabulary from one file, special tokens from all.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "common/error.h"
#include "common/log.h"
#include "data/hf_bpe_tokenizer.h"
#include "data/sentencepiece_model.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/tokenizer_files.h"
#include "formats/hf_special_tokens.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kMaxTokenizerBytes = 256 << 20;
constexpr const char* kBeside[] = {"tokenizer.json",
                                   "tokenizer_config.json",
                                   "special_tokens_map.json",
                                   "added_tokens.json",
                                   "generation_config.json",
                                   "config.json"};

using IdsByText = std::unordered_map<std::string, int32_t>;

std::function<std::optional<int32_t>(const std::string&)> finder(IdsByText ids) {
  return [ids = std::move(ids)](const std::string& text) -> std::optional<int32_t> {
    const auto found = ids.find(text);
    return found == ids.end() ? std::nullopt : std::optional<int32_t>(found->second);
  };
}

// Returns whether the description is that of a checkpoint or a data set of this program.
bool is_own_description(Io& io, const std::string& path) {
  if (!fs::exists(path)) return false;
  const JsonLimits limits{.max_size_bytes = kMaxTokenizerBytes,
                          .max_tree_bytes = 64 << 20,
                          .tables = {"model.vocab", "model.merges"}};
  const auto json = parse_json(read_file(io, path, kMaxTokenizerBytes), path, limits);
  return json.is_object() && json.contains("kind") && !json.contains("model");
}

// Leaves out added tokens past the model's rows, often a padding token.
void leave_out_rowless(SpecialTokens& special,
                       int64_t n_own,
                       int64_t max_tokens,
                       const std::string& path) {
  const auto is_rowless = [&](int32_t id) { return id >= std::max(n_own, max_tokens); };
  std::erase_if(special.added, [&](const AddedToken& token) {
    if (!is_rowless(token.id)) return false;
    log_warning(fmt::format("{}: the added token '{}' of id {} is left out: the model has {} rows",
                            path,
                            token.content,
                            token.id,
                            max_tokens));
    return true;
  });
  std::erase_if(special.eos, is_rowless);
  if (special.pad && is_rowless(*special.pad)) special.pad.reset();
}

}  // namespace

std::unique_ptr<Tokenizer> read_hf_tokenizer(Io& io, const std::string& path, int64_t max_tokens) {
  auto bytes = read_file(io, path, kMaxTokenizerBytes);
  const auto file = parse_bpe_tokenizer(bytes, path);
  IdsByText ids;
  for (size_t id = 0; id < file.token_bytes.size(); ++id) {
    ids.emplace(file.token_bytes[id], static_cast<int32_t>(id));
  }
  auto special = read_hf_special_tokens(
      io, fs::path(path).parent_path().string(), path, {.find = finder(std::move(ids))});
  leave_out_rowless(special, static_cast<int64_t>(file.token_bytes.size()), max_tokens, path);
  return std::make_unique<HfBpeTokenizer>(std::move(bytes), path, std::move(special));
}

std::unique_ptr<Tokenizer> read_hf_sentencepiece(Io& io,
                                                 const std::string& path,
                                                 int64_t max_tokens) {
  const auto directory = fs::path(path).parent_path();
  const auto beside = [&](const char* name) { return (directory / name).string(); };
  if (is_own_description(io, beside("tokenizer.json"))) {
    return load_tokenizer(io, directory.empty() ? "." : directory.string());
  }
  auto bytes = read_file(io, path, kMaxTokenizerBytes);
  auto alone = std::make_unique<SentencePieceTokenizer>(bytes, path);
  const bool has_files = std::any_of(std::begin(kBeside), std::end(kBeside), [&](const char* name) {
    return fs::exists(beside(name));
  });
  if (!has_files) return alone;
  IdsByText ids;
  for (int32_t id = 0; id < alone->n_pieces(); ++id) ids.emplace(alone->token_name(id), id);
  std::vector<AddedToken> controls;
  const auto pieces = read_sentencepiece_pieces(bytes);
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].type != SentencePiece::kControl || pieces[id].text.empty()) continue;
    controls.push_back(
        {.id = static_cast<int32_t>(id), .content = pieces[id].text, .special = true});
  }
  auto special = read_hf_special_tokens(io,
                                        directory.string(),
                                        beside("tokenizer.json"),
                                        {.find = finder(std::move(ids)),
                                         .bos = alone->bos_id(),
                                         .eos = alone->eos_id(),
                                         .added = std::move(controls),
                                         .adds_bos = true});
  leave_out_rowless(special, alone->n_pieces(), max_tokens, path);
  return std::make_unique<SentencePieceTokenizer>(std::move(bytes), path, std::move(special));
}

}  // namespace dsmoe
