#include "data/hf_tokenizer_export.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/hf_bpe_tokenizer.h"
#include "data/sentencepiece_tokenizer.h"

namespace dsmoe {
namespace {

using Json = nlohmann::ordered_json;
using NameOf = std::function<std::string(int32_t id)>;

// bos_token, eos_token and pad_token by their texts. A token without one is left out: naming a
// piece of text would make it special.
Json names_of(const SpecialTokens& special, const NameOf& name_of) {
  Json names = Json::object();
  const auto add = [&](const char* key, const std::optional<int32_t>& id) {
    const auto name = id ? name_of(*id) : "";
    if (!name.empty()) names[key] = name;
  };
  add("bos_token", special.bos);
  add("eos_token", special.eos.empty() ? std::nullopt : std::optional<int32_t>(special.eos[0]));
  add("pad_token", special.pad);
  return names;
}

void add_config(std::vector<TokenizerFile>& files,
                Json config,
                const SpecialTokens& special,
                const Json& names) {
  // Absent names have defaults in some classes.
  for (const char* key : {"bos_token", "eos_token", "pad_token"}) {
    config[key] = names.contains(key) ? names[key] : Json(nullptr);
  }
  config["add_bos_token"] = special.adds_bos;
  config["add_eos_token"] = special.adds_eos;
  config["clean_up_tokenization_spaces"] = false;
  config["model_input_names"] = {"input_ids", "attention_mask"};
  config["added_tokens_decoder"] = Json::object();
  for (const auto& token : special.added) {
    config["added_tokens_decoder"][std::to_string(token.id)] = added_token_to_json(token);
  }
  files.push_back({"tokenizer_config.json", config.dump(2) + "\n"});
  files.push_back({"special_tokens_map.json", names.dump(2) + "\n"});
}

std::vector<TokenizerFile> files_of(const SentencePieceTokenizer& tokenizer) {
  const auto& special = tokenizer.special_tokens();
  std::vector<TokenizerFile> files{{"tokenizer.model", tokenizer.model_bytes()}};
  Json added = Json::object();
  for (const auto& token : special.added) {
    if (token.id >= tokenizer.n_pieces()) added[token.content] = token.id;
  }
  if (!added.empty()) files.push_back({"added_tokens.json", added.dump(2) + "\n"});
  const auto names = names_of(special, [&](int32_t id) {
    return tokenizer.has_token(id) && tokenizer.decode({id}).empty() ? tokenizer.token_name(id)
                                                                     : "";
  });
  add_config(files,
             {{"tokenizer_class", "LlamaTokenizer"}, {"legacy", special.prefixes_every_piece}},
             special,
             names);
  return files;
}

// Returns the file's bytes, with a template for BOS if the tokenizer adds BOS and the file has no
// such template.
std::string with_template(const HfBpeTokenizer& tokenizer, const Json& names) {
  const auto& special = tokenizer.special_tokens();
  if (!special.adds_bos || tokenizer.file().bos_id || !names.contains("bos_token")) {
    return tokenizer.json();
  }
  auto json = Json::parse(tokenizer.json());
  const auto name = names["bos_token"].get<std::string>();
  const auto item = [](const char* kind, const std::string& id, int type) {
    return Json{{kind, {{"id", id}, {"type_id", type}}}};
  };
  Json processor = {
      {"type", "TemplateProcessing"},
      {"single", Json::array({item("SpecialToken", name, 0), item("Sequence", "A", 0)})},
      {"pair",
       Json::array({item("SpecialToken", name, 0),
                    item("Sequence", "A", 0),
                    item("SpecialToken", name, 1),
                    item("Sequence", "B", 1)})},
      {"special_tokens", {{name, {{"id", name}, {"ids", {*special.bos}}, {"tokens", {name}}}}}}};
  auto& own = json["post_processor"];
  own = own.is_null() ? processor
                      : Json{{"type", "Sequence"}, {"processors", Json::array({own, processor})}};
  return json.dump();
}

std::vector<TokenizerFile> files_of(const HfBpeTokenizer& tokenizer) {
  const auto& special = tokenizer.special_tokens();
  const auto names = names_of(special, [&](int32_t id) {
    const auto* added = special.find(id);
    return added == nullptr ? "" : added->content;
  });
  std::vector<TokenizerFile> files{{"tokenizer.json", with_template(tokenizer, names)}};
  add_config(files, {{"tokenizer_class", "PreTrainedTokenizerFast"}}, special, names);
  return files;
}

}  // namespace

std::vector<TokenizerFile> hf_tokenizer_files(const Tokenizer& tokenizer) {
  if (const auto* pieces = dynamic_cast<const SentencePieceTokenizer*>(&tokenizer)) {
    return files_of(*pieces);
  }
  if (const auto* bpe = dynamic_cast<const HfBpeTokenizer*>(&tokenizer)) return files_of(*bpe);
  return {};
}

}  // namespace dsmoe
