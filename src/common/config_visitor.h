#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace dsmoe {

/// Rule for a key whose value differs when a run resumes.
enum class ResumeRule {
  kFixed,    ///< refused
  kApplied,  ///< the new value is used, and the change is reported
  kFree,     ///< the new value is used
};

/// Rule for a key of the model when a run takes its weights from another checkpoint.
enum class InitRule {
  kCompared,  ///< changes the function: copied where the config does not set it, else must be equal
  kTaken,     ///< copied where the config does not set it, else the config's value is used
  kFree,      ///< the config's value is used: no effect on the function beyond that of other keys
};

struct FieldInfo {
  const char* doc;
  const char* unit = "";
  ResumeRule resume = ResumeRule::kFixed;
  InitRule init = InitRule::kCompared;  ///< of keys of the model; a new key is compared
  /// Of a key without effect beside the other values: key and values that would give it one, such
  /// as `model.attention.kind: dense`; null: it has an effect.
  const char* needs = nullptr;
};

/// Walks the keys of a config struct. One `describe(visitor, config)` per struct serves reading,
/// writing, documentation and comparison.
class ConfigVisitor {
 public:
  virtual ~ConfigVisitor() = default;
  virtual void begin_section(const char* name, const char* doc) = 0;
  virtual void end_section() = 0;
  virtual void integer(const char* key,
                       int64_t& value,
                       int64_t min,
                       int64_t max,
                       FieldInfo info) = 0;
  virtual void real(const char* key, double& value, double min, double max, FieldInfo info) = 0;
  virtual void boolean(const char* key, bool& value, FieldInfo info) = 0;
  virtual void text(const char* key, std::string& value, FieldInfo info) = 0;
  /// A file may write a list of one text as that text.
  virtual void text_list(const char* key, std::vector<std::string>& value, FieldInfo info) = 0;
  /// A path of a file or directory: reading expands `~` and variables (expand_path). Texts that are
  /// not paths, such as `bytes` of data.tokenizer, stay the same.
  virtual void path(const char* key, std::string& value, FieldInfo info) { text(key, value, info); }
  virtual void path_list(const char* key, std::vector<std::string>& value, FieldInfo info) {
    text_list(key, value, info);
  }
  virtual void number_list(const char* key,
                           std::vector<double>& value,
                           double min,
                           double max,
                           FieldInfo info) = 0;
  virtual void choice(const char* key,
                      std::string& value,
                      const std::vector<std::string>& choices,
                      FieldInfo info) = 0;
};

/// An enum, written as one of its names.
template <class E>
void choice(ConfigVisitor& visitor,
            const char* key,
            E& value,
            const std::vector<std::pair<std::string, E>>& names,
            FieldInfo info) {
  std::string text;
  std::vector<std::string> choices;
  for (const auto& [name, candidate] : names) {
    choices.push_back(name);
    if (candidate == value) text = name;
  }
  visitor.choice(key, text, choices, info);
  for (const auto& [name, candidate] : names) {
    if (name == text) value = candidate;
  }
}

}  // namespace dsmoe
