// Which files of a Hugging Face directory say what about its tokenizer.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "data/hf_bpe_tokenizer.h"
#include "data/tokenizer_files.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxTokenizerBytes = 256 << 20;

// A sibling of `path`; null if it is not there.
nlohmann::json read_sibling(Io& io, const std::string& path, const char* name) {
  const auto sibling = (std::filesystem::path(path).parent_path() / name).string();
  if (!std::filesystem::exists(sibling)) return nullptr;
  const JsonLimits limits;
  auto json = parse_json(read_file(io, sibling, limits.max_size_bytes), sibling, limits);
  if (!json.is_object()) throw Error(fmt::format("{}: expected a JSON object", sibling));
  return json;
}

// A token of tokenizer_config.json: its text, or an object that has it; empty if there is none.
std::string token_text(const nlohmann::json& config, const char* key) {
  const auto token = config.is_object() ? config.find(key) : config.end();
  if (!config.is_object() || token == config.end()) return "";
  if (token->is_string()) return token->get<std::string>();
  const auto content = token->is_object() ? token->find("content") : token->end();
  return token->is_object() && content != token->end() && content->is_string()
             ? content->get<std::string>()
             : "";
}

// An id of config.json, or the first of its list.
std::optional<int32_t> first_id(const nlohmann::json& config, const char* key) {
  if (!config.is_object() || !config.contains(key)) return std::nullopt;
  const auto* value = &config.at(key);
  if (value->is_array() && !value->empty()) value = &value->front();
  if (!value->is_number_unsigned() || value->get<uint64_t>() > 1u << 24) return std::nullopt;
  return value->get<int32_t>();
}

std::optional<int32_t> find_added(const BpeTokenizerFile& file, const std::string& content) {
  for (const auto& token : file.added) {
    if (token.content == content) return token.id;
  }
  return std::nullopt;
}

}  // namespace

std::unique_ptr<Tokenizer> read_hf_tokenizer(Io& io, const std::string& path) {
  auto bytes = read_file(io, path, kMaxTokenizerBytes);
  const auto file = parse_bpe_tokenizer(bytes, path);
  const auto tokens = read_sibling(io, path, "tokenizer_config.json");
  const auto config = read_sibling(io, path, "config.json");
  const auto choose = [&](const char* token_key, const char* id_key) {
    const auto named = find_added(file, token_text(tokens, token_key));
    return named ? named : first_id(config, id_key);
  };
  const auto bos = file.bos_id ? file.bos_id : choose("bos_token", "bos_token_id");
  return std::make_unique<HfBpeTokenizer>(
      std::move(bytes), path, bos, choose("eos_token", "eos_token_id"));
}

}  // namespace dsmoe
