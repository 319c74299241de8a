#pragma once

#include <yaml-cpp/yaml.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/config_reader.h"

namespace dsmoe {

/// A fault of a config and where it is, for the order.
struct ConfigFault {
  int line = 0;  ///< of the file, from 1; overrides come after every line
  std::string text;
};

/// The value of one key as a text or an override writes it.
struct ConfigLeaf {
  YAML::Node node;
  std::string shown;  ///< the key as it is written; by another name: `lr (train.schedule.peak)`
  int line = 0;
  bool is_override = false;
  bool is_alias = false;
};

/// The keys that a text and its overrides set, by their names here. Collects faults instead of
/// throwing them.
class ConfigTree {
 public:
  ConfigTree(std::string source_name, const std::vector<std::string>& keys, ReadOptions options);

  /// Adds the keys of a text; the root is a map.
  void add_text(const YAML::Node& root) { add_section(root, "", ""); }
  /// Adds `section.key=value`; it replaces the text's value. Throws Error for another form.
  void add_override(const std::string& text);

  const ConfigLeaf* find(const std::string& key) const;
  /// `t.yaml:7: train.steps` or `--train.steps`; the node is the leaf's or one inside.
  std::string place_of(const ConfigLeaf& leaf, const YAML::Node& node) const;
  void add_fault(const ConfigLeaf& leaf, const std::string& text);

  GivenKeys given() const;
  /// In the order of the lines; clears them.
  std::vector<std::string> take_faults();

 private:
  void add_section(const YAML::Node& node, const std::string& path, const std::string& shown);
  void add_entry(ConfigLeaf entry, const std::string& section, const std::string& name);
  void add_unknown(const ConfigLeaf& entry, const std::string& section, const std::string& name);
  bool add_by_alias(const ConfigLeaf& entry, const std::string& name);
  bool add_by_name(const ConfigLeaf& entry, const std::string& name);
  void set(const std::string& key, ConfigLeaf leaf);
  const SectionAlias* section_alias(const std::string& name) const;

  std::string source_name_;
  ReadOptions options_;
  std::set<std::string> keys_;
  std::set<std::string> sections_;
  std::map<std::string, ConfigLeaf> leaves_;
  std::vector<ConfigFault> faults_;
  std::vector<std::string> notes_;
};

/// The value of a scalar, else what a node is: `a section`, `a list`, `nothing`.
std::string text_of(const YAML::Node& node);

}  // namespace dsmoe
