#include "common/config_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "common/config_names.h"

namespace dsmoe {
namespace {

constexpr int kAfterEveryLine = std::numeric_limits<int>::max();

int line_of(const YAML::Node& node) { return node.Mark().line + 1; }

// The value of a key for the value of an alias; only a scalar has a text to put in.
YAML::Node value_of(const KeyAlias& alias, const YAML::Node& node) {
  if (alias.value == "{}" || !node.IsScalar()) return node;
  return YAML::Node(fmt::format(fmt::runtime(alias.value), node.Scalar()));
}

}  // namespace

std::string text_of(const YAML::Node& node) {
  if (node.IsScalar()) return node.Scalar();
  return node.IsMap() ? "a section" : node.IsSequence() ? "a list" : "nothing";
}

ConfigTree::ConfigTree(std::string source_name,
                       const std::vector<std::string>& keys,
                       ReadOptions options)
    : source_name_(std::move(source_name)), options_(options), keys_(keys.begin(), keys.end()) {
  for (const auto& key : keys) {
    for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', dot + 1)) {
      sections_.insert(key.substr(0, dot));
    }
  }
}

const ConfigLeaf* ConfigTree::find(const std::string& key) const {
  const auto found = leaves_.find(key);
  return found == leaves_.end() ? nullptr : &found->second;
}

std::string ConfigTree::place_of(const ConfigLeaf& leaf, const YAML::Node& node) const {
  if (leaf.is_override) return "--" + leaf.shown;
  const int line = node.Mark().is_null() ? leaf.line : line_of(node);
  return fmt::format("{}:{}: {}", source_name_, line, leaf.shown);
}

void ConfigTree::add_fault(const ConfigLeaf& leaf, const std::string& text) {
  faults_.push_back({leaf.is_override ? kAfterEveryLine : leaf.line, text});
}

GivenKeys ConfigTree::given() const {
  GivenKeys given;
  for (const auto& [key, leaf] : leaves_) {
    given.add(key,
              {.text = place_of(leaf, leaf.node),
               .is_override = leaf.is_override,
               .is_alias = leaf.is_alias});
  }
  given.notes = notes_;
  return given;
}

std::vector<std::string> ConfigTree::take_faults() {
  std::stable_sort(
      faults_.begin(), faults_.end(), [](const auto& a, const auto& b) { return a.line < b.line; });
  std::vector<std::string> texts;
  for (auto& fault : faults_) texts.push_back(std::move(fault.text));
  faults_.clear();
  return texts;
}

// path: the section as it is named here; shown: as the text names it.
void ConfigTree::add_section(const YAML::Node& node,
                             const std::string& path,
                             const std::string& shown) {
  std::set<std::string> seen;
  for (const auto& pair : node) {
    const std::string name = text_of(pair.first);
    ConfigLeaf entry{.node = pair.second,
                     .shown = join_path(shown, name),
                     .line = line_of(pair.first),
                     .is_alias = path != shown};
    if (!seen.insert(name).second) {
      add_fault(entry, place_of(entry, pair.first) + ": this key appears twice");
      continue;
    }
    add_entry(std::move(entry), path, name);
  }
}

void ConfigTree::add_entry(ConfigLeaf entry, const std::string& section, const std::string& name) {
  const auto path = join_path(section, name);
  if (keys_.count(path) > 0) {
    set(path, std::move(entry));
  } else if (sections_.count(path) == 0) {
    add_unknown(entry, section, name);
  } else if (entry.node.IsMap()) {
    add_section(entry.node, path, entry.shown);
  } else if (!entry.node.IsNull()) {
    add_fault(entry,
              fmt::format("{}: expected a section of keys, got '{}'",
                          place_of(entry, entry.node),
                          text_of(entry.node)));
  }
}

void ConfigTree::add_unknown(const ConfigLeaf& entry,
                             const std::string& section,
                             const std::string& name) {
  if (const auto* alias = section_alias(name); alias != nullptr && entry.node.IsMap()) {
    add_section(entry.node, std::string(alias->section), entry.shown);
    return;
  }
  if (add_by_alias(entry, name) || add_by_name(entry, name)) return;
  YAML::Node no_mark;
  add_fault(entry,
            fmt::format("{}: unknown key; {}",
                        place_of(entry, no_mark),
                        suggest_key(join_path(section, name), keys_, sections_, options_.aliases)));
}

bool ConfigTree::add_by_alias(const ConfigLeaf& entry, const std::string& name) {
  const auto plain = plain_name(name);
  for (const auto& alias : options_.aliases) {
    if (alias.name != plain) continue;
    if (alias.key.empty()) {
      add_fault(entry, fmt::format("{}: {}", place_of(entry, YAML::Node()), alias.refusal));
      return true;
    }
    if (keys_.count(std::string(alias.key)) == 0) return false;
    auto leaf = entry;
    leaf.node = value_of(alias, entry.node);
    leaf.is_alias = true;
    set(std::string(alias.key), std::move(leaf));
    return true;
  }
  return false;
}

// A key in a wrong section.
bool ConfigTree::add_by_name(const ConfigLeaf& entry, const std::string& name) {
  if (options_.aliases.empty() || entry.node.IsMap()) return false;
  std::vector<std::string> namesakes;
  for (const auto& key : keys_) {
    if (last_part(key) == plain_name(name)) namesakes.push_back(key);
  }
  if (namesakes.size() != 1) return false;
  auto leaf = entry;
  leaf.is_alias = true;
  set(namesakes.front(), std::move(leaf));
  return true;
}

void ConfigTree::set(const std::string& key, ConfigLeaf leaf) {
  if (leaf.is_alias) {
    const auto value =
        leaf.node.IsScalar() ? fmt::format(": {}", leaf.node.Scalar()) : std::string();
    notes_.push_back(fmt::format("{} is read as {}{}", place_of(leaf, YAML::Node()), key, value));
    leaf.shown = fmt::format("{} ({})", leaf.shown, key);
  }
  const auto* other = find(key);
  if (other != nullptr && !other->is_override && !leaf.is_override) {
    add_fault(leaf,
              fmt::format("{}: line {} sets {} too; keep one of them",
                          place_of(leaf, YAML::Node()),
                          other->line,
                          key));
    return;
  }
  leaves_[key] = std::move(leaf);
}

const SectionAlias* ConfigTree::section_alias(const std::string& name) const {
  const auto plain = plain_name(name);
  for (const auto& alias : options_.section_aliases) {
    const auto section = std::string(alias.section);
    if (alias.name == plain && (section.empty() || sections_.count(section) > 0)) return &alias;
  }
  return nullptr;
}

void ConfigTree::add_override(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw Error(fmt::format("override: expected section.key=value, got '{}'", text));
  }
  const auto path = text.substr(0, equals);
  ConfigLeaf entry{.node = YAML::Node(text.substr(equals + 1)),
                   .shown = path,
                   .line = kAfterEveryLine,
                   .is_override = true};
  std::string section;
  size_t begin = 0;
  for (size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', begin)) {
    const auto name = path.substr(begin, dot - begin);
    const auto next = join_path(section, name);
    const auto* alias = sections_.count(next) > 0 ? nullptr : section_alias(name);
    if (alias == nullptr && sections_.count(next) == 0) {
      add_fault(entry,
                fmt::format("--{}: unknown key; {}",
                            path,
                            suggest_key(path, keys_, sections_, options_.aliases)));
      return;
    }
    entry.is_alias = entry.is_alias || alias != nullptr;
    section = alias == nullptr ? next : std::string(alias->section);
    begin = dot + 1;
  }
  add_entry(std::move(entry), section, path.substr(begin));
}

}  // namespace dsmoe
