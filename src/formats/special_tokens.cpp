#include "formats/special_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "formats/hash.h"

namespace dsmoe {
namespace {

using Json = nlohmann::json;

bool flag_of(const Json& json, const char* key, bool missing, const std::string& source_name) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return missing;
  if (!found->is_boolean()) {
    throw Error(fmt::format("{}: expected true or false as '{}'", source_name, key));
  }
  return found->get<bool>();
}

int32_t id_from(const Json& json, const char* key, const std::string& source_name) {
  if (!json.is_number_unsigned() || json.get<uint64_t>() > kMaxSpecialId) {
    throw Error(fmt::format("{}: expected '{}' to be a token id from 0 to {}, got {}",
                            source_name,
                            key,
                            kMaxSpecialId,
                            json.dump().substr(0, 60)));
  }
  return json.get<int32_t>();
}

std::optional<int32_t> optional_id(const Json& json,
                                   const char* key,
                                   const std::string& source_name) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return std::nullopt;
  return id_from(*found, key, source_name);
}

const Json& list_of(const Json& json, const char* key, const std::string& source_name) {
  static const Json kNone = Json::array();
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return kNone;
  if (!found->is_array()) throw Error(fmt::format("{}: expected a list '{}'", source_name, key));
  return *found;
}

// The text of a template's item that is a special token; empty for another.
std::string special_text(const Json& item, const std::string& source_name) {
  const auto found = item.is_object() ? item.find("SpecialToken") : item.end();
  if (!item.is_object() || found == item.end()) return "";
  const auto id = found->is_object() ? found->find("id") : found->end();
  if (!found->is_object() || id == found->end() || !id->is_string()) {
    throw Error(fmt::format("{}: expected a text 'id' of a SpecialToken", source_name));
  }
  return id->get<std::string>();
}

}  // namespace

bool SpecialTokens::is_eos(int32_t id) const {
  return std::find(eos.begin(), eos.end(), id) != eos.end();
}

const AddedToken* SpecialTokens::find(std::string_view content) const {
  const auto found = std::find_if(
      added.begin(), added.end(), [&](const auto& token) { return token.content == content; });
  return found == added.end() ? nullptr : &*found;
}

const AddedToken* SpecialTokens::find(int32_t id) const {
  const auto found =
      std::find_if(added.begin(), added.end(), [&](const auto& token) { return token.id == id; });
  return found == added.end() ? nullptr : &*found;
}

nlohmann::ordered_json special_tokens_to_json(const SpecialTokens& special) {
  nlohmann::ordered_json json;
  if (special.bos) json["bos"] = *special.bos;
  json["adds_bos"] = special.adds_bos;
  if (special.adds_eos) json["adds_eos"] = true;
  json["eos"] = special.eos;
  if (special.pad) json["pad"] = *special.pad;
  if (special.prefixes_every_piece) json["prefixes_every_piece"] = true;
  json["added"] = nlohmann::ordered_json::array();
  for (const auto& token : special.added) {
    nlohmann::ordered_json item = {{"id", token.id}, {"content", token.content}};
    // `normalized` has no fixed default: it is always written.
    item["normalized"] = token.normalized;
    if (token.special) item["special"] = true;
    if (token.single_word) item["single_word"] = true;
    if (token.lstrip) item["lstrip"] = true;
    if (token.rstrip) item["rstrip"] = true;
    json["added"].push_back(std::move(item));
  }
  return json;
}

SpecialTokens special_tokens_from_json(const Json& json, const std::string& source_name) {
  if (!json.is_object()) {
    throw Error(fmt::format("{}: expected an object 'special_tokens'", source_name));
  }
  SpecialTokens special;
  special.bos = optional_id(json, "bos", source_name);
  special.adds_bos = flag_of(json, "adds_bos", special.bos.has_value(), source_name);
  special.adds_eos = flag_of(json, "adds_eos", false, source_name);
  special.pad = optional_id(json, "pad", source_name);
  special.prefixes_every_piece = flag_of(json, "prefixes_every_piece", false, source_name);
  for (const auto& id : list_of(json, "eos", source_name)) {
    special.eos.push_back(id_from(id, "eos", source_name));
  }
  for (const auto& item : list_of(json, "added", source_name)) {
    const auto id = item.is_object() ? optional_id(item, "id", source_name) : std::nullopt;
    if (!id) throw Error(fmt::format("{}: expected an id of an added token", source_name));
    special.added.push_back(added_token_from_json(item, *id, source_name));
  }
  return special;
}

std::string added_tokens_fingerprint(const SpecialTokens& special) {
  if (special.added.empty()) return "";
  const SpecialTokens part{.added = special.added,
                           .prefixes_every_piece = special.prefixes_every_piece};
  return "-" + hash64(special_tokens_to_json(part).dump());
}

AddedToken added_token_from_json(const Json& json, int32_t id, const std::string& source_name) {
  const auto content = json.is_object() ? json.find("content") : json.end();
  if (!json.is_object() || content == json.end() || !content->is_string() ||
      content->get_ref<const std::string&>().empty() ||
      content->get_ref<const std::string&>().find('\0') != std::string::npos) {
    throw Error(fmt::format("{}: expected an id and a content of an added token", source_name));
  }
  AddedToken token{.id = id, .content = content->get<std::string>()};
  token.special = flag_of(json, "special", false, source_name);
  token.single_word = flag_of(json, "single_word", false, source_name);
  token.lstrip = flag_of(json, "lstrip", false, source_name);
  token.rstrip = flag_of(json, "rstrip", false, source_name);
  token.normalized = flag_of(json, "normalized", !token.special, source_name);
  return token;
}

nlohmann::ordered_json added_token_to_json(const AddedToken& token) {
  return {{"content", token.content},
          {"lstrip", token.lstrip},
          {"normalized", token.normalized},
          {"rstrip", token.rstrip},
          {"single_word", token.single_word},
          {"special", token.special}};
}

void set_special_ids(nlohmann::ordered_json& config, const SpecialTokens& special) {
  const auto set = [&](const char* key, const std::optional<int32_t>& id) {
    config[key] = id ? nlohmann::ordered_json(*id) : nlohmann::ordered_json(nullptr);
  };
  set("bos_token_id", special.bos);
  if (special.eos.size() > 1) {
    config["eos_token_id"] = special.eos;
  } else {
    set("eos_token_id",
        special.eos.empty() ? std::nullopt : std::optional<int32_t>(special.eos.front()));
  }
  set("pad_token_id", special.pad);
}

TextTemplate text_template(const Json& post_processor, const std::string& source_name) {
  TextTemplate result;
  if (post_processor.is_null()) return result;
  const auto type = post_processor.is_object() ? post_processor.find("type") : post_processor.end();
  if (!post_processor.is_object() || type == post_processor.end() || !type->is_string()) {
    throw Error(fmt::format("{}: expected a text 'type' of the post_processor", source_name));
  }
  if (*type == "Sequence") {
    for (const auto& step : list_of(post_processor, "processors", source_name)) {
      const auto inner = text_template(step, source_name);
      if (inner.is_there) result = inner;
    }
  }
  if (*type != "TemplateProcessing") return result;
  const auto& single = list_of(post_processor, "single", source_name);
  if (single.empty()) throw Error(fmt::format("{}: expected a list 'single'", source_name));
  result.is_there = true;
  result.before = special_text(single.front(), source_name);
  if (single.size() > 1) result.after = special_text(single.back(), source_name);
  return result;
}

}  // namespace dsmoe
