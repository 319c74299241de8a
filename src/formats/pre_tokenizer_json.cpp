#include "formats/pre_tokenizer_json.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "common/error.h"

namespace dsmoe {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxPatternBytes = 4096;
constexpr size_t kMaxSplits = 32;
constexpr size_t kMaxDepth = 8;
// ByteLevel's built-in expression, which files select by `use_regex` only.
constexpr const char* kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::array kBehaviors = {
    std::pair{"Removed", SplitBehavior::kRemoved},
    std::pair{"Isolated", SplitBehavior::kIsolated},
    std::pair{"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
    std::pair{"MergedWithNext", SplitBehavior::kMergedWithNext},
    std::pair{"Contiguous", SplitBehavior::kContiguous}};

std::string escaped(const std::string& text) {
  std::string pattern;
  for (const char letter : text) {
    if (std::string_view("\\^$.|?*+()[]{}").find(letter) != std::string_view::npos) pattern += '\\';
    pattern += letter;
  }
  return pattern;
}

class Reader {
 public:
  explicit Reader(const std::string& source_name) : source_(source_name) {}

  PreTokenizerSteps pre_tokenizer(const Json* json) {
    if (json == nullptr) fail("a pre_tokenizer ByteLevel", "none");
    add(*json, 0);
    if (!is_complete_) fail("a pre_tokenizer that ends with ByteLevel", type_of(*json));
    return std::move(steps_);
  }

  bool normalizer(const Json& json, size_t depth) const {
    const auto type = type_of(json);
    if (type == "NFC") return true;
    if (type != "Sequence" || depth > kMaxDepth) fail("a normalizer NFC or none", type);
    bool is_nfc = false;
    for (const auto& step : list(json, "normalizers")) {
      is_nfc = normalizer(step, depth + 1) || is_nfc;
    }
    return is_nfc;
  }

 private:
  [[noreturn]] void fail(std::string_view expected, std::string_view got) const {
    throw Error(fmt::format("{}: expected {}, got {}", source_, expected, got));
  }
  const Json* find(const Json& json, const char* key) const {
    const auto found = json.is_object() ? json.find(key) : json.end();
    return found == json.end() || found->is_null() ? nullptr : &*found;
  }
  std::string type_of(const Json& json) const {
    const auto* type = find(json, "type");
    if (type == nullptr || !type->is_string()) fail("a text 'type' of a step", "none");
    return type->get<std::string>();
  }
  const Json& list(const Json& json, const char* key) const {
    const auto* steps = find(json, key);
    if (steps == nullptr || !steps->is_array()) fail(fmt::format("a list '{}'", key), "none");
    return *steps;
  }
  bool flag(const Json& json, const char* key, bool missing) const {
    const auto* value = find(json, key);
    if (value == nullptr) return missing;
    if (!value->is_boolean()) fail(fmt::format("true or false as '{}'", key), value->type_name());
    return value->get<bool>();
  }

  void add(const Json& json, size_t depth) {
    const auto type = type_of(json);
    if (is_complete_) fail("ByteLevel as the last step of the pre_tokenizer", type + " after it");
    if (steps_.splits.size() >= kMaxSplits || depth > kMaxDepth) {
      fail(fmt::format("at most {} steps of the pre_tokenizer", kMaxSplits), "more");
    }
    if (type == "Sequence") {
      for (const auto& step : list(json, "pretokenizers")) add(step, depth + 1);
    } else if (type == "Split") {
      add_split(json);
    } else if (type == "Digits") {
      const bool is_one = flag(json, "individual_digits", false);
      steps_.splits.push_back({is_one ? "\\p{tokenizers:Digits}" : "\\p{tokenizers:Digits}+"});
    } else if (type == "Punctuation") {
      steps_.splits.push_back(
          {"\\p{tokenizers:Punctuation}", behavior(json, SplitBehavior::kIsolated)});
    } else if (type == "ByteLevel") {
      steps_.add_prefix_space = flag(json, "add_prefix_space", true);
      steps_.prefix_before = steps_.splits.size();
      if (flag(json, "use_regex", true)) steps_.splits.push_back({kByteLevelPattern});
      is_complete_ = true;
    } else {
      fail("a pre_tokenizer of Split, Digits, Punctuation and ByteLevel", type);
    }
  }

  void add_split(const Json& json) {
    const auto* pattern = find(json, "pattern");
    const auto* expression = pattern == nullptr ? nullptr : find(*pattern, "Regex");
    const auto* text = pattern == nullptr ? nullptr : find(*pattern, "String");
    const auto* given = expression != nullptr ? expression : text;
    if (given == nullptr || !given->is_string()) fail("a pattern Regex or String of Split", "none");
    const auto& value = given->get_ref<const std::string&>();
    if (value.empty() || value.size() > kMaxPatternBytes) {
      fail(fmt::format("a pattern of 1 to {} bytes", kMaxPatternBytes),
           std::to_string(value.size()));
    }
    if (find(json, "behavior") == nullptr) fail("a 'behavior' of Split", "none");
    steps_.splits.push_back({expression != nullptr ? value : escaped(value),
                             behavior(json, SplitBehavior::kIsolated),
                             flag(json, "invert", false)});
  }

  SplitBehavior behavior(const Json& json, SplitBehavior missing) const {
    const auto* value = find(json, "behavior");
    if (value == nullptr) return missing;
    for (const auto& [name, behavior] : kBehaviors) {
      if (*value == name) return behavior;
    }
    fail("a behavior of Split that is known", value->dump());
  }

  const std::string& source_;
  PreTokenizerSteps steps_;
  bool is_complete_ = false;  // ByteLevel was read
};

}  // namespace

PreTokenizerSteps read_pre_tokenizer(const Json* json, const std::string& source_name) {
  return Reader(source_name).pre_tokenizer(json);
}

bool reads_nfc(const Json* json, const std::string& source_name) {
  return json != nullptr && Reader(source_name).normalizer(*json, 0);
}

}  // namespace dsmoe
