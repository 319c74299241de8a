#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/config_visitor.h"
#include "common/error.h"

namespace dsmoe {

/// Walks every key of the configs that are read or written together.
using Describe = std::function<void(ConfigVisitor&)>;

/// Selects the reading of a config's paths: as a person writes them (expand_path), or literally, as
/// a resolved config stores them.
enum class PathSyntax { kExpanded, kLiteral };

/// A name that people bring from other programs. Names are compared in lower case with `_` for `-`.
struct KeyAlias {
  std::string_view name;
  std::string_view key = "";      ///< with its sections; empty: the name is refused
  std::string_view refusal = "";  ///< what to write instead of a refused name
  std::string_view value = "{}";  ///< of the key; {} stands for the value of the name
};

/// A section that people bring from other programs, or write at another level.
struct SectionAlias {
  std::string_view name;
  std::string_view section;  ///< with its sections; empty: the top level
};

/// Selects what a reader accepts beside the keys.
struct ReadOptions {
  ReadOptions(
      PathSyntax path_syntax = PathSyntax::kExpanded)  // NOLINT(google-explicit-constructor)
      : paths(path_syntax) {}

  PathSyntax paths;
  /// Read as the key that they mean, at the top level and in every section, each with a note. With
  /// aliases a key in a wrong section is read too if one key alone has its name.
  std::span<const KeyAlias> aliases = {};
  std::span<const SectionAlias> section_aliases = {};
};

/// Keys that a text and its overrides set, and where.
class GivenKeys {
 public:
  struct Place {
    std::string text;  ///< `t.yaml:7: train.steps` or `--train.steps`
    bool is_override = false;
    bool is_alias = false;  ///< written by another name
    bool operator==(const Place&) const = default;
  };

  GivenKeys() = default;
  /// Keys of a file without lines.
  GivenKeys(std::initializer_list<std::string> keys) : GivenKeys(keys.begin(), keys.end()) {}
  template <class Iterator>
  GivenKeys(Iterator begin, Iterator end) {
    for (; begin != end; ++begin) add(*begin, {.text = *begin});
  }

  void add(const std::string& key, Place place) { places_[key] = std::move(place); }
  void erase(const std::string& key) { places_.erase(key); }
  bool contains(const std::string& key) const { return places_.count(key) > 0; }
  /// Null if the key is not set.
  const Place* find(const std::string& key) const;
  std::set<std::string> names() const;
  bool empty() const { return places_.empty(); }

  /// One line for each name that was read as another key.
  std::vector<std::string> notes;

 private:
  std::map<std::string, Place> places_;
};

/// Every fault of a config; `what` is all lines.
class ConfigError : public Error {
 public:
  /// Adds a line that counts the faults if there is more than one.
  ConfigError(const std::string& source_name, std::vector<std::string> faults);
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  std::vector<std::string> lines_;
};

/// Reads YAML (or JSON) over the values that the configs hold already; a missing key keeps its
/// value.
///
/// source_name  name of the text, for messages
/// overrides    `section.key=value`, applied after the text; a value `[a, b]` is a list only if the
///              key is a list
/// Counts are read by parse_count.
/// Throws ConfigError with a line for every fault, each with source, line, key and what was
/// expected: unknown key (with the right or nearest one), duplicate key, a key set by two names,
/// wrong type, value out of range. Throws Error with one line for a text that is no config: empty,
/// second document, anchors, depth above 32, more than 1 MB, not YAML, not UTF-8.
GivenKeys read_config_text(const std::string& text,
                           const std::string& source_name,
                           const std::vector<std::string>& overrides,
                           const Describe& describe,
                           const ReadOptions& options = {});

/// The same from a file.
GivenKeys read_config_file(const std::string& path,
                           const std::vector<std::string>& overrides,
                           const Describe& describe,
                           const ReadOptions& options = {});

/// Returns a line for every given key that has no effect beside the other values (FieldInfo::needs)
/// and is not switched off by its own value, false or 0. A key of the file passes if an override
/// changes the key that it needs.
std::vector<std::string> unused_keys(const Describe& describe, const GivenKeys& given);

/// Returns every key, with its sections, in the order of the description.
std::vector<std::string> config_keys(const Describe& describe);

/// Returns every key with its value as YAML that reads back to the same configs: quotes what
/// expand_path would change.
std::string config_to_yaml(const Describe& describe);

/// The same as JSON, with numbers as numbers and paths unquoted; read it back with
/// PathSyntax::kLiteral.
std::string config_to_json(const Describe& describe);

/// Returns a Markdown table of every key: type, unit, default (the current value), range, resume
/// rule,
/// meaning.
std::string config_to_markdown(const Describe& describe);

/// One key with different values in two configs of the same type.
struct ConfigChange {
  std::string key;
  std::string old_value;
  std::string new_value;
  ResumeRule rule;
  InitRule init;  ///< applies together with the other values of the new config
};

std::vector<ConfigChange> compare_configs(const Describe& old_configs, const Describe& new_configs);

}  // namespace dsmoe
