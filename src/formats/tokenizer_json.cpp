#include "formats/tokenizer_json.h"

#include <fmt/format.h>

#include <unordered_map>

#include "common/error.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

using Json = nlohmann::json;
const JsonLimits kTokenizerLimits{.max_size_bytes = 256 << 20,
                                  .max_token_bytes = 1 << 20,
                                  .tables = {"model.vocab", "model.merges"}};
constexpr size_t kMaxPatternBytes = 4096;
// GPT-2's, which files name by `use_regex` only.
constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

using Ids = std::unordered_map<std::string, int32_t>;

std::string utf8(uint32_t code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

std::vector<std::string> make_byte_characters() {
  std::vector<std::string> characters;
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
    characters.push_back(utf8(printable ? byte : next++));
  }
  return characters;
}

// Reads one file; every method throws Error naming the source and what it was reading.
class Parser {
 public:
  Parser(const Json& root, const std::string& source_name) : root_(root), source_(source_name) {}

  BpeTokenizerFile parse() {
    const auto& model = object(root_, "model");
    check_supported(model);
    read_added();
    read_vocabulary(model);
    read_merges(model);
    read_pre_tokenizer(part("pre_tokenizer"));
    read_bos(part("post_processor"));
    file_.ignore_merges = flag(model, "ignore_merges");
    return std::move(file_);
  }

 private:
  [[noreturn]] void fail(const std::string& expected) const {
    throw Error(fmt::format("{}: expected {}", source_, expected));
  }
  // A member that is there and not null, or null.
  static const Json* find(const Json& json, const char* key) {
    const auto found = json.is_object() ? json.find(key) : json.end();
    return found == json.end() || found->is_null() ? nullptr : &*found;
  }
  const Json* part(const char* key) const { return find(root_, key); }
  const Json& object(const Json& json, const char* key) const {
    const auto* value = find(json, key);
    if (value == nullptr || !value->is_object()) fail(fmt::format("an object '{}'", key));
    return *value;
  }
  const std::string& text(const Json& json, const char* key) const {
    const auto* value = find(json, key);
    if (value == nullptr || !value->is_string()) fail(fmt::format("a text '{}'", key));
    return value->get_ref<const std::string&>();
  }
  bool flag(const Json& json, const char* key, bool missing = false) const {
    const auto* value = find(json, key);
    if (value == nullptr) return missing;
    if (!value->is_boolean()) fail(fmt::format("true or false as '{}'", key));
    return value->get<bool>();
  }
  int32_t id(const Json& value) const {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > 1u << 24) {
      fail(fmt::format("a token id from 0 to {}, got {}", 1 << 24, value.dump().substr(0, 40)));
    }
    return value.get<int32_t>();
  }

  void check_supported(const Json& model) const {
    if (const auto* type = find(model, "type"); type != nullptr && *type != "BPE") {
      fail("a model of type BPE");
    }
    if (flag(model, "byte_fallback")) fail("byte-level BPE, got byte_fallback");
    for (const auto* key : {"continuing_subword_prefix", "end_of_word_suffix", "dropout"}) {
      const auto* value = find(model, key);
      if (value != nullptr && *value != "") fail(fmt::format("no '{}'", key));
    }
    if (part("normalizer") != nullptr) fail("no normalizer; none is supported");
  }

  void read_added() {
    const auto* list = part("added_tokens");
    if (list == nullptr) return;
    if (!list->is_array()) fail("a list 'added_tokens'");
    for (const auto& item : *list) {
      const auto* number = find(item, "id");
      AddedToken token{.id = number ? id(*number) : -1,
                       .content = text(item, "content"),
                       .special = flag(item, "special")};
      if (token.id < 0 || token.content.empty()) fail("an id and a content of an added token");
      for (const auto* key : {"single_word", "lstrip", "rstrip"}) {
        if (flag(item, key)) fail(fmt::format("no '{}' in '{}'", key, token.content));
      }
      if (!added_ids_.emplace(token.content, token.id).second) {
        fail(fmt::format("each added token once, got '{}' twice", token.content));
      }
      file_.added.push_back(std::move(token));
    }
  }

  void read_vocabulary(const Json& model) {
    const auto& vocabulary = object(model, "vocab");
    size_t n_tokens = vocabulary.size();
    for (const auto& [content, number] : added_ids_) n_tokens += !vocabulary.contains(content);
    file_.token_bytes.resize(n_tokens);
    std::vector<bool> taken(n_tokens);
    const auto take = [&](int32_t number, const std::string& token) {
      const auto index = static_cast<size_t>(number);
      if (index >= n_tokens || taken[index]) {
        fail(fmt::format("ids 0 to {} once each, got {} for '{}'", n_tokens - 1, number, token));
      }
      taken[index] = true;
    };
    for (const auto& [token, value] : vocabulary.items()) {
      const int32_t number = id(value);
      const auto added = added_ids_.find(token);
      if (added != added_ids_.end() && added->second != number) {
        fail(fmt::format("one id for '{}', got {} and {}", token, number, added->second));
      }
      take(number, token);
      file_.token_bytes[static_cast<size_t>(number)] =
          added == added_ids_.end() ? bytes_of(token) : token;
      ids_.emplace(token, number);
    }
    for (const auto& [content, number] : added_ids_) {
      if (ids_.contains(content)) continue;
      take(number, content);
      file_.token_bytes[static_cast<size_t>(number)] = content;
    }
    for (const auto& character : byte_characters()) {
      if (!ids_.contains(character))
        fail(fmt::format("a token for each byte, got no '{}'", character));
    }
  }

  std::string bytes_of(const std::string& token) const {
    static const auto kByteOf = [] {
      std::unordered_map<std::string, char> bytes;
      for (size_t byte = 0; byte < 256; ++byte) {
        bytes.emplace(byte_characters()[byte], static_cast<char>(byte));
      }
      return bytes;
    }();
    std::string bytes;
    for (size_t begin = 0; begin < token.size();) {
      const size_t length = static_cast<unsigned char>(token[begin]) < 0x80 ? 1 : 2;
      const auto found = kByteOf.find(token.substr(begin, length));
      if (found == kByteOf.end()) {
        fail(fmt::format("characters that stand for bytes, got '{}'", token));
      }
      bytes.push_back(found->second);
      begin += length;
    }
    return bytes;
  }

  int32_t token_id(const std::string& token) const {
    const auto found = ids_.find(token);
    if (found == ids_.end()) fail(fmt::format("merges of tokens, got '{}'", token));
    return found->second;
  }

  void read_merges(const Json& model) {
    const auto* merges = find(model, "merges");
    if (merges == nullptr || !merges->is_array()) fail("a list 'merges'");
    for (const auto& merge : *merges) {
      std::string left;
      std::string right;
      if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      } else if (merge.is_string()) {
        const auto& whole = merge.get_ref<const std::string&>();
        const auto blank = whole.find(' ');
        if (blank == std::string::npos) fail(fmt::format("a merge as 'a b', got '{}'", whole));
        left = whole.substr(0, blank);
        right = whole.substr(blank + 1);
      } else {
        fail("merges as texts or pairs of texts");
      }
      file_.merges.push_back({token_id(left), token_id(right), token_id(left + right)});
    }
  }

  // ByteLevel with its own expression, or a Split by an expression and then ByteLevel.
  void read_pre_tokenizer(const Json* json) {
    constexpr const char* kForms = "a pre_tokenizer ByteLevel, or Split and ByteLevel";
    if (json == nullptr) fail(kForms);
    std::vector<const Json*> steps{json};
    if (text(*json, "type") == "Sequence") {
      const auto* list = find(*json, "pretokenizers");
      if (list == nullptr || !list->is_array()) fail(kForms);
      steps.clear();
      for (const auto& step : *list) steps.push_back(&step);
    }
    if (steps.empty() || steps.size() > 2 || text(*steps.back(), "type") != "ByteLevel") {
      fail(kForms);
    }
    const bool use_regex = flag(*steps.back(), "use_regex", true);
    file_.add_prefix_space = flag(*steps.back(), "add_prefix_space", true);
    if (steps.size() == 1) {
      file_.pattern = use_regex ? kGpt2Pattern : "";
      return;
    }
    const auto& split = *steps.front();
    if (use_regex || text(split, "type") != "Split" || text(split, "behavior") != "Isolated" ||
        flag(split, "invert")) {
      fail(kForms);
    }
    file_.pattern = text(object(split, "pattern"), "Regex");
    if (file_.pattern.empty() || file_.pattern.size() > kMaxPatternBytes) {
      fail(fmt::format("a pattern of 1 to {} bytes", kMaxPatternBytes));
    }
  }

  // The special token that a template puts before the text, if any.
  void read_bos(const Json* json) {
    if (json == nullptr) return;
    const auto& type = text(*json, "type");
    if (type == "Sequence") {
      const auto* list = find(*json, "processors");
      if (list == nullptr || !list->is_array()) fail("a list 'processors'");
      for (const auto& step : *list) read_bos(&step);
    }
    if (type != "TemplateProcessing") return;
    const auto* single = find(*json, "single");
    if (single == nullptr || !single->is_array() || single->empty()) fail("a list 'single'");
    if (const auto* first = find(single->front(), "SpecialToken")) {
      const auto& name = text(*first, "id");
      const auto found = added_ids_.find(name);
      if (found == added_ids_.end()) fail(fmt::format("an added token '{}'", name));
      file_.bos_id = found->second;
    }
  }

  const Json& root_;
  const std::string& source_;
  BpeTokenizerFile file_;
  Ids ids_;
  Ids added_ids_;
};

}  // namespace

const std::vector<std::string>& byte_characters() {
  static const auto kCharacters = make_byte_characters();
  return kCharacters;
}

bool is_byte_level_bpe(const std::string& text, const std::string& source_name) {
  const auto json = parse_json(text, source_name, kTokenizerLimits);
  if (!json.is_object()) throw Error(fmt::format("{}: expected a JSON object", source_name));
  const auto model = json.find("model");
  if (model == json.end() || !model->is_object()) return false;
  return model->value("type", Json("BPE")) == Json("BPE") &&
         model->value("byte_fallback", Json(false)) != Json(true) && model->contains("merges");
}

BpeTokenizerFile parse_bpe_tokenizer(const std::string& text, const std::string& source_name) {
  const auto json = parse_json(text, source_name, kTokenizerLimits);
  if (!json.is_object()) throw Error(fmt::format("{}: expected a JSON object", source_name));
  return Parser(json, source_name).parse();
}

}  // namespace dsmoe
