#include "formats/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "common/error.h"
#include "formats/json_limits.h"
#include "formats/json_tables.h"

namespace dsmoe {
namespace {

using Json = nlohmann::json;
constexpr const char* kVocabulary = "model.vocab";
constexpr const char* kMerges = "model.merges";
const JsonLimits kTokenizerLimits{.max_size_bytes = 256 << 20,
                                  .max_token_bytes = 1 << 19,
                                  .tables = {kVocabulary, kMerges}};
constexpr uint64_t kMaxTokenId = 1 << 24;

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

// Ids by token in little more memory than the tokens' text.
class TokenIndex {
 public:
  void reserve(size_t n_tokens, size_t n_bytes) {
    entries_.reserve(n_tokens);
    texts_.reserve(n_bytes + n_tokens);
  }
  // Tokens hold no zero byte.
  void add(const std::string& token, int32_t id) {
    entries_.push_back({static_cast<uint32_t>(texts_.size()), id});
    texts_.append(token).push_back('\0');
  }
  // Call after the last token and before any look-up. Returns a duplicate token, or null.
  const char* sort() {
    const auto before = [this](const Entry& a, const Entry& b) {
      return std::string_view(text(a)) < std::string_view(text(b));
    };
    std::sort(entries_.begin(), entries_.end(), before);
    const auto same = [this](const Entry& a, const Entry& b) {
      return std::string_view(text(a)) == std::string_view(text(b));
    };
    const auto twice = std::adjacent_find(entries_.begin(), entries_.end(), same);
    return twice == entries_.end() ? nullptr : text(*twice);
  }
  // Returns the id, or -1.
  int32_t find(std::string_view token) const {
    const auto found = std::lower_bound(
        entries_.begin(), entries_.end(), token, [this](const Entry& entry, std::string_view key) {
          return std::string_view(text(entry)) < key;
        });
    return found != entries_.end() && text(*found) == token ? found->id : -1;
  }
  void for_each(const auto& visit) const {
    for (const auto& entry : entries_) visit(std::string(text(entry)), entry.id);
  }

 private:
  struct Entry {
    uint32_t begin;
    int32_t id;
  };
  const char* text(const Entry& entry) const { return texts_.c_str() + entry.begin; }

  std::vector<Entry> entries_;
  std::string texts_;
};

// Reads one file; every method throws Error naming the source and the part. Checks everything
// before it builds anything larger than the text.
class Parser {
 public:
  Parser(const std::string& text, const Json& root, const std::string& source_name)
      : text_(text), root_(root), source_(source_name) {}

  BpeTokenizerFile parse(const CheckSteps& check_steps) {
    const auto& model = object(root_, "model");
    check_supported(model);
    file_.ignore_merges = flag(model, "ignore_merges");
    read_added();
    file_.is_nfc = reads_nfc(part("normalizer"), source_);
    file_.steps = read_pre_tokenizer(part("pre_tokenizer"), source_);
    read_bos(part("post_processor"));
    if (check_steps) check_steps(file_.steps);
    object(model, "vocab");
    read_vocabulary();
    const auto* merges = find(model, "merges");
    if (merges == nullptr || !merges->is_array()) fail("a list 'merges'");
    size_t n_merges = 0;
    read_merges([&](const BpeMerge&) { ++n_merges; });
    fill_token_bytes();
    file_.merges.reserve(n_merges);
    read_merges([&](const BpeMerge& merge) { file_.merges.push_back(merge); });
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
  int32_t id(uint64_t number) const {
    if (number > kMaxTokenId) {
      fail(fmt::format("a token id from 0 to {}, got {}", kMaxTokenId, number));
    }
    return static_cast<int32_t>(number);
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
  }

  void read_added() {
    const auto* list = part("added_tokens");
    if (list == nullptr) return;
    if (!list->is_array()) fail("a list 'added_tokens'");
    for (const auto& item : *list) {
      const auto* number = find(item, "id");
      const bool has_id = number != nullptr && number->is_number_unsigned();
      if (!has_id) fail("an id and a content of an added token");
      auto token = added_token_from_json(item, id(number->get<uint64_t>()), source_);
      if (!added_ids_.emplace(token.content, token.id).second) {
        fail(fmt::format("each added token once, got '{}' twice", token.content));
      }
      file_.added.push_back(std::move(token));
    }
  }

  void read_vocabulary() {
    size_t n_bytes = 0;
    n_tokens_ = 0;
    auto only_added = added_ids_;
    read_json_table(text_, kVocabulary, [&](const JsonTableEntry& entry) {
      ++n_tokens_;
      n_bytes += entry.texts[0].size();
      only_added.erase(entry.texts[0]);
    });
    index_.reserve(n_tokens_, n_bytes);
    n_tokens_ += only_added.size();
    std::vector<bool> taken(n_tokens_);
    read_json_table(text_, kVocabulary, [&](const JsonTableEntry& entry) {
      add_token(entry.texts[0], id(entry.number), taken);
    });
    for (const auto& [content, number] : only_added) take(number, content, taken);
    if (const auto* twice = index_.sort()) fail(fmt::format("'{}' once in the vocabulary", twice));
    for (const auto& character : byte_characters()) {
      if (index_.find(character) < 0 || added_ids_.contains(character)) {
        fail(fmt::format("a token for each byte, got no '{}'", character));
      }
    }
  }

  void take(int32_t number, const std::string& token, std::vector<bool>& taken) const {
    const auto at = static_cast<size_t>(number);
    if (at >= n_tokens_ || taken[at]) {
      fail(fmt::format("ids 0 to {} once each, got {} for '{}'", n_tokens_ - 1, number, token));
    }
    taken[at] = true;
  }

  void add_token(const std::string& token, int32_t number, std::vector<bool>& taken) {
    const auto added = added_ids_.find(token);
    if (added == added_ids_.end()) {
      bytes_of(token);
    } else if (added->second != number) {
      fail(fmt::format("one id for '{}', got {} and {}", token, number, added->second));
    }
    take(number, token, taken);
    index_.add(token, number);
  }

  void fill_token_bytes() {
    file_.token_bytes.resize(n_tokens_);
    index_.for_each([&](const std::string& token, int32_t number) {
      if (!added_ids_.contains(token)) {
        file_.token_bytes[static_cast<size_t>(number)] = bytes_of(token);
      }
    });
    for (const auto& [content, number] : added_ids_) {
      file_.token_bytes[static_cast<size_t>(number)] = content;
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
    const int32_t found = index_.find(token);
    if (found < 0) fail(fmt::format("merges of tokens, got '{}'", token));
    return found;
  }

  void read_merges(const std::function<void(const BpeMerge&)>& visit) const {
    read_json_table(text_, kMerges, [&](const JsonTableEntry& entry) {
      if (entry.is_pair && entry.texts.size() != 2) fail("merges as texts or pairs of texts");
      const auto& first = entry.texts[0];
      const auto blank = entry.is_pair ? first.size() : first.find(' ');
      if (blank == std::string::npos) fail(fmt::format("a merge as 'a b', got '{}'", first));
      const auto left = first.substr(0, blank);
      const auto right = entry.is_pair ? entry.texts[1] : first.substr(blank + 1);
      visit({token_id(left), token_id(right), token_id(left + right)});
    });
  }

  // The special token that a template puts before the text, if any.
  void read_bos(const Json* json) {
    if (json == nullptr) return;
    const auto name = text_template(*json, source_).before;
    if (name.empty()) return;
    const auto found = added_ids_.find(name);
    if (found == added_ids_.end()) fail(fmt::format("an added token '{}'", name));
    file_.bos_id = found->second;
  }

  const std::string& text_;
  const Json& root_;
  const std::string& source_;
  BpeTokenizerFile file_;
  std::unordered_map<std::string, int32_t> added_ids_;
  size_t n_tokens_ = 0;
  TokenIndex index_;  // of the vocabulary, without tokens that were added only
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

BpeTokenizerFile parse_bpe_tokenizer(const std::string& text,
                                     const std::string& source_name,
                                     const CheckSteps& check_steps) {
  const auto json = parse_json(text, source_name, kTokenizerLimits);
  if (!json.is_object()) throw Error(fmt::format("{}: expected a JSON object", source_name));
  return Parser(text, json, source_name).parse(check_steps);
}

}  // namespace dsmoe
