#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace dsmoe {

/// What happens to a key that differs when a run resumes.
enum class ResumeRule {
  kFixed,    ///< refused
  kApplied,  ///< the new value counts, and the change is reported
  kFree,     ///< the new value counts
};

/// What happens to a key of the model when a run takes its weights from another checkpoint.
enum class InitRule {
  kCompared,  ///< changes the function: taken over where the config is silent, else must be equal
  kTaken,     ///< taken over where the config is silent, else the config's value counts
  kFree,      ///< the config's value counts: no effect on the function, or none beside other keys
};

struct FieldInfo {
  const char* doc;
  const char* unit = "";
  ResumeRule resume = ResumeRule::kFixed;
  InitRule init = InitRule::kCompared;  ///< of keys of the model; a new key is compared
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
  /// In a file one text may stand for a list of one.
  virtual void text_list(const char* key, std::vector<std::string>& value, FieldInfo info) = 0;
  /// A path of a file or directory: reading expands `~` and variables (expand_path). Texts that are
  /// no path, such as `bytes` of data.tokenizer, read the same.
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

/// An enum as one of its names.
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
