#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "common/config_visitor.h"

namespace dsmoe {

/// Walks every key of the configs that are read or written together.
using Describe = std::function<void(ConfigVisitor&)>;

/// How a config's paths are read: as a person writes them (expand_path), or as a resolved config
/// stores them.
enum class PathSyntax { kExpanded, kLiteral };

/// Reads YAML (or JSON) over the values that the configs hold already; a missing key keeps its
/// value.
///
/// source_name  of the text, for messages
/// overrides    `section.key=value`, applied after the text; a value is a list (`[a, b]`) only
///              where the key is one
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

/// Every key, with its sections, in the order of the description.
std::vector<std::string> config_keys(const Describe& describe);

/// Every key with its value; reading it back gives the same configs: what expand_path would read
/// otherwise is quoted.
std::string config_to_yaml(const Describe& describe);

/// The same as JSON, with numbers as numbers and paths as they are, to be read back with
/// PathSyntax::kLiteral.
std::string config_to_json(const Describe& describe);

/// A Markdown table of every key: type, unit, default (the value now held), range, resume rule,
/// meaning.
std::string config_to_markdown(const Describe& describe);

/// One key whose value differs between two configs of one shape.
struct ConfigChange {
  std::string key;
  std::string old_value;
  std::string new_value;
  ResumeRule rule;
  InitRule init;  ///< beside the other values of the new config
};

std::vector<ConfigChange> compare_configs(const Describe& old_configs, const Describe& new_configs);

}  // namespace dsmoe
