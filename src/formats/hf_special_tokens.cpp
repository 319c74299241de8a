#include "formats/hf_special_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/error.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

using Json = nlohmann::json;
constexpr const char* kNamedTokens[] =
    {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
constexpr const char* kListsOfTokens[] = {"additional_special_tokens", "extra_special_tokens"};

// The values of one file; an empty object where there is none.
struct File {
  std::string path;
  Json json = Json::object();

  const Json* find(const char* key) const {
    const auto found = json.find(key);
    return found == json.end() ? nullptr : &*found;
  }
};

File read_json(Io& io, const std::string& path) {
  File file{.path = path};
  if (path.empty() || !std::filesystem::exists(path)) return file;
  // Thousands of added tokens are usual; vocabularies are read elsewhere.
  const JsonLimits limits{.max_size_bytes = 256 << 20,
                          .max_tree_bytes = 64 << 20,
                          .tables = {"model.vocab", "model.merges"}};
  file.json = parse_json(read_file(io, path, limits.max_size_bytes), path, limits);
  if (!file.json.is_object()) throw Error(fmt::format("{}: expected a JSON object", path));
  return file;
}

// A step of that type, itself or in its list of steps; null if there is none.
const Json* find_step(const Json* json, const std::string& type) {
  if (json == nullptr || !json->is_object()) return nullptr;
  const auto own = json->find("type");
  if (own != json->end() && *own == type) return json;
  for (const char* key : {"normalizers", "pretokenizers"}) {
    const auto list = json->find(key);
    if (list == json->end() || !list->is_array()) continue;
    for (const auto& step : *list) {
      if (const auto* found = find_step(&step, type)) return found;
    }
  }
  return nullptr;
}

class Reader {
 public:
  Reader(Io& io,
         const std::string& directory,
         const std::string& tokenizer_json,
         const OwnVocabulary& own)
      : own_(own),
        tokenizer_(read_json(io, tokenizer_json)),
        names_(read_json(io, at(directory, "tokenizer_config.json"))),
        map_(read_json(io, at(directory, "special_tokens_map.json"))),
        extra_(read_json(io, at(directory, "added_tokens.json"))),
        generation_(read_json(io, at(directory, "generation_config.json"))),
        config_(read_json(io, at(directory, "config.json"))) {
    has_decoder_ = names_.find("added_tokens_decoder") != nullptr;
  }

  SpecialTokens read() {
    read_added();
    read_named();
    const auto* post = tokenizer_.find("post_processor");
    const auto around = text_template(post == nullptr ? Json() : *post, tokenizer_.path);
    read_bos(around);
    read_eos(around);
    special_.pad = named_id("pad_token");
    if (!special_.pad) special_.pad = config_id("pad_token_id");
    special_.prefixes_every_piece = prefixes_every_piece();
    std::sort(special_.added.begin(), special_.added.end(), [](const auto& a, const auto& b) {
      return a.id < b.id;
    });
    check_ids();
    return std::move(special_);
  }

 private:
  static std::string at(const std::string& directory, const char* name) {
    return (std::filesystem::path(directory) / name).string();
  }

  // A token of a later file replaces one of the same spelling.
  void add(AddedToken token) {
    if (const auto own = own_.find(token.content)) token.id = *own;
    for (auto& known : special_.added) {
      if (known.content != token.content) continue;
      token.id = known.id;
      known = std::move(token);
      return;
    }
    special_.added.push_back(std::move(token));
  }

  void read_added() {
    special_.added = own_.added;
    if (!has_decoder_) {
      for (const auto& [content, id] : extra_.json.items()) {
        const bool special = is_named(content);
        add({.id = checked_id(id, extra_.path),
             .content = content,
             .special = special,
             .normalized = !special});
      }
    }
    if (const auto* list = tokenizer_.find("added_tokens"); list != nullptr && list->is_array()) {
      for (const auto& item : *list) {
        const auto id = item.is_object() ? item.find("id") : item.end();
        if (!item.is_object() || id == item.end()) {
          throw Error(fmt::format("{}: expected an id of an added token", tokenizer_.path));
        }
        add(added_token_from_json(item, checked_id(*id, tokenizer_.path), tokenizer_.path));
      }
    }
    if (!has_decoder_) return;
    const auto& decoder = *names_.find("added_tokens_decoder");
    if (!decoder.is_object()) {
      throw Error(fmt::format("{}: expected an object 'added_tokens_decoder'", names_.path));
    }
    for (const auto& [key, item] : decoder.items()) {
      int32_t id = -1;
      const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
      if (parsed.ptr != key.data() + key.size() || id < 0 || id > kMaxSpecialId) {
        throw Error(
            fmt::format("{}: expected token ids as keys of 'added_tokens_decoder', got '{}'",
                        names_.path,
                        key));
      }
      add(added_token_from_json(item, id, names_.path));
    }
  }

  int32_t checked_id(const Json& id, const std::string& path) const {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > kMaxSpecialId) {
      throw Error(fmt::format("{}: expected token ids from 0 to {}, got {}",
                              path,
                              kMaxSpecialId,
                              id.dump().substr(0, 60)));
    }
    return id.get<int32_t>();
  }

  // Returns the value that names a token under `key`, by the order of files; null if there is none.
  const Json* named(const char* key) const {
    const auto* mapped = has_decoder_ ? nullptr : map_.find(key);
    return mapped != nullptr ? mapped : names_.find(key);
  }

  // The text of a token that is written as a text or as an object.
  static std::string text_of(const Json* token) {
    if (token == nullptr) return "";
    if (token->is_string()) return token->get<std::string>();
    const auto content = token->is_object() ? token->find("content") : token->end();
    const bool has_text = token->is_object() && content != token->end() && content->is_string();
    return has_text ? content->get<std::string>() : "";
  }

  void for_each_named(const auto& visit) const {
    for (const char* key : kNamedTokens) {
      if (const auto* token = named(key)) visit(*token);
    }
    for (const char* key : kListsOfTokens) {
      const auto* list = named(key);
      if (list == nullptr || !list->is_structured()) continue;
      for (const auto& token : *list) visit(token);
    }
  }

  bool is_named(const std::string& content) const {
    bool found = false;
    for_each_named([&](const Json& token) { found = found || text_of(&token) == content; });
    return found;
  }

  // A named token that is nowhere in the vocabulary has no row in the model: it is left out.
  void read_named() {
    for_each_named([&](const Json& json) {
      const auto content = text_of(&json);
      if (content.empty() || special_.find(content) != nullptr) return;
      const auto id = own_.find(content);
      if (!id) return;
      AddedToken token{.id = *id, .content = content};
      if (json.is_object()) token = added_token_from_json(json, *id, names_.path);
      token.special = true;
      special_.added.push_back(std::move(token));
    });
  }

  std::optional<int32_t> id_of(const std::string& content) const {
    if (content.empty()) return std::nullopt;
    if (const auto* token = special_.find(content)) return token->id;
    return own_.find(content);
  }
  std::optional<int32_t> named_id(const char* key) const { return id_of(text_of(named(key))); }

  // Ids under a key of generation_config.json, then of config.json. A negative one means none.
  std::vector<int32_t> config_ids(const char* key) const {
    std::vector<int32_t> ids;
    for (const auto* file : {&generation_, &config_}) {
      const auto* value = file->find(key);
      if (value == nullptr) continue;
      const auto list = value->is_array() ? *value : Json::array({*value});
      for (const auto& id : list) {
        const bool means_none = id.is_null() || (id.is_number_integer() && id.get<int64_t>() < 0);
        if (!means_none) ids.push_back(checked_id(id, file->path));
      }
    }
    return ids;
  }
  std::optional<int32_t> config_id(const char* key) const {
    const auto ids = config_ids(key);
    return ids.empty() ? std::nullopt : std::optional<int32_t>(ids.front());
  }

  std::optional<bool> option(const char* key) const {
    const auto* value = names_.find(key);
    return value != nullptr && value->is_boolean() ? std::optional<bool>(value->get<bool>())
                                                   : std::nullopt;
  }

  int32_t template_id(const std::string& content) const {
    const auto id = id_of(content);
    if (!id) {
      throw Error(fmt::format("{}: expected an added token '{}'", tokenizer_.path, content));
    }
    return *id;
  }

  void read_bos(const TextTemplate& around) {
    if (!around.before.empty()) {
      special_.bos = template_id(around.before);
    } else {
      special_.bos = named_id("bos_token");
      if (!special_.bos && named("bos_token") == nullptr) special_.bos = own_.bos;
    }
    if (around.is_there) {
      special_.adds_bos = !around.before.empty();
    } else {
      special_.adds_bos = special_.bos && option("add_bos_token").value_or(own_.adds_bos);
    }
    if (!special_.bos) special_.bos = config_id("bos_token_id");
  }

  void read_eos(const TextTemplate& around) {
    const auto add_eos = [&](int32_t id) {
      if (!special_.is_eos(id)) special_.eos.push_back(id);
    };
    auto named_eos = named_id("eos_token");
    if (!named_eos && named("eos_token") == nullptr) named_eos = own_.eos;
    if (named_eos) add_eos(*named_eos);
    for (const int32_t id : config_ids("eos_token_id")) add_eos(id);
    special_.adds_eos = around.is_there ? !around.after.empty()
                                        : named_eos && option("add_eos_token").value_or(false);
  }

  bool prefixes_every_piece() const {
    if (find_step(tokenizer_.find("normalizer"), "Prepend") != nullptr) return true;
    if (const auto* step = find_step(tokenizer_.find("pre_tokenizer"), "Metaspace")) {
      const auto scheme = step->find("prepend_scheme");
      return scheme == step->end() || *scheme == "always";
    }
    return option("legacy").value_or(false);
  }

  void check_ids() const {
    for (size_t i = 1; i < special_.added.size(); ++i) {
      const auto& a = special_.added[i - 1];
      const auto& b = special_.added[i];
      if (a.id == b.id) {
        throw Error(fmt::format("{}: expected one added token for the id {}, got '{}' and '{}'",
                                has_decoder_ ? names_.path : extra_.path,
                                a.id,
                                a.content,
                                b.content));
      }
    }
  }

  const OwnVocabulary& own_;
  File tokenizer_;
  File names_;
  File map_;
  File extra_;
  File generation_;
  File config_;
  bool has_decoder_ = false;
  SpecialTokens special_;
};

}  // namespace

SpecialTokens read_hf_special_tokens(Io& io,
                                     const std::string& directory,
                                     const std::string& tokenizer_json,
                                     const OwnVocabulary& own) {
  return Reader(io, directory, tokenizer_json, own).read();
}

}  // namespace dsmoe
