#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "common/config_visitor.h"

namespace dsmoe {

/// Walks every key of the configs that are read or written together.
using Describe = std::function<void(ConfigVisitor&)>;

/// Selects the reading of a config's paths: as a person writes them (expand_path), or literally, as
/// a resolved config stores them.
enum class PathSyntax { kExpanded, kLiteral };

/// Reads YAML (or JSON) over the values that the configs hold already; a missing key keeps its
/// value.
///
/// source_name  name of the text, for messages
/// overrides    `section.key=value`, applied after the text; a value `[a, b]` is a list only if the
///              key is a list
/// paths        whether `~` and variables of paths are expanded
/// returns      the keys, with their sections, that the text or an override sets
/// Throws Error, one line with source, line, key and what was expected: unknown key (with the
/// nearest valid one), duplicate key, wrong type, value out of range, empty text, second document,
/// anchors, depth above 32, more than 1 MB, not UTF-8.
std::set<std::string> read_config_text(const std::string& text,
                                       const std::string& source_name,
                                       const std::vector<std::string>& overrides,
                                       const Describe& describe,
                                       PathSyntax paths = PathSyntax::kExpanded);

/// The same from a file.
std::set<std::string> read_config_file(const std::string& path,
                                       const std::vector<std::string>& overrides,
                                       const Describe& describe,
                                       PathSyntax paths = PathSyntax::kExpanded);

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
