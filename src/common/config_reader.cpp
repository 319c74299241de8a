#include "common/config_reader.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "common/config_names.h"
#include "common/config_tree.h"
#include "common/counts.h"
#include "common/io.h"
#include "common/path_expansion.h"

namespace dsmoe {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxDepth = 32;

// Checks what yaml-cpp's tree does not keep: anchors, aliases and depth.
class StrictEvents final : public YAML::EventHandler {
 public:
  explicit StrictEvents(const std::string& source) : source_(source) {}
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { check(mark, anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { fail(mark, "an alias"); }
  void OnScalar(const YAML::Mark& mark,
                const std::string&,
                YAML::anchor_t anchor,
                const std::string&) override {
    check(mark, anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark,
                       const std::string&,
                       YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, anchor);
  }
  void OnSequenceEnd() override { --depth_; }
  void OnMapStart(const YAML::Mark& mark,
                  const std::string&,
                  YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, anchor);
  }
  void OnMapEnd() override { --depth_; }

 private:
  [[noreturn]] void fail(const YAML::Mark& mark, const char* what) {
    throw Error(
        fmt::format("{}:{}: expected plain keys and values, got {}", source_, mark.line + 1, what));
  }
  void check(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != 0) fail(mark, "an anchor");
  }
  void open(const YAML::Mark& mark, YAML::anchor_t anchor) {
    check(mark, anchor);
    if (++depth_ > kMaxDepth) fail(mark, "more than 32 levels");
  }
  const std::string& source_;
  int depth_ = 0;
};

// Reads the keys of a tree into configs, and adds a fault for each value that does not fit.
class TreeReader final : public ConfigVisitor {
 public:
  TreeReader(ConfigTree& tree, PathSyntax paths) : tree_(tree), paths_(paths) {}

  void begin_section(const char* name, const char*) override { sections_.push_back(path_of(name)); }
  void end_section() override { sections_.pop_back(); }

  void integer(const char* key, int64_t& value, int64_t min, int64_t max, FieldInfo) override {
    const auto* leaf = find(key);
    if (leaf == nullptr) return;
    const auto read = leaf->node.IsScalar() ? parse_count(leaf->node.Scalar()) : std::nullopt;
    if (!read) {
      fail(*leaf, leaf->node, "an integer");
    } else if (*read < min || *read > max) {
      fail(*leaf, leaf->node, fmt::format("a value in [{}, {}]", min, max));
    } else {
      value = *read;
    }
  }
  void real(const char* key, double& value, double min, double max, FieldInfo) override {
    const auto* leaf = find(key);
    if (leaf == nullptr) return;
    const auto read = parse_real(leaf->node);
    if (!read) {
      fail(*leaf, leaf->node, "a finite number");
    } else if (*read < min || *read > max) {
      fail(*leaf, leaf->node, fmt::format("a value in [{}, {}]", min, max));
    } else {
      value = *read;
    }
  }
  void boolean(const char* key, bool& value, FieldInfo) override {
    const auto* leaf = find(key);
    if (leaf == nullptr) return;
    const auto read = text_of(leaf->node);
    if (read != "true" && read != "false") {
      fail(*leaf, leaf->node, "true or false");
    } else {
      value = read == "true";
    }
  }
  void text(const char* key, std::string& value, FieldInfo) override {
    const auto* leaf = find(key);
    if (leaf == nullptr) return;
    if (!leaf->node.IsScalar()) {
      fail(*leaf, leaf->node, "a text");
    } else {
      value = leaf->node.Scalar();
    }
  }
  void text_list(const char* key, std::vector<std::string>& value, FieldInfo) override {
    const auto* leaf = find(key);
    if (leaf == nullptr) return;
    if (auto read = texts_of(*leaf)) value = *std::move(read);
  }
  void path(const char* key, std::string& value, FieldInfo info) override {
    text(key, value, info);
    const auto* leaf = find(key);
    if (leaf != nullptr && leaf->node.IsScalar()) value = expanded(value, *leaf);
  }
  void path_list(const char* key, std::vector<std::string>& value, FieldInfo) override {
    const auto* leaf = find(key);
    if (leaf == nullptr) return;
    auto read = texts_of(*leaf);
    if (!read) return;
    value = *std::move(read);
    for (auto& item : value) item = expanded(item, *leaf);
  }
  void number_list(const char* key,
                   std::vector<double>& value,
                   double min,
                   double max,
                   FieldInfo) override {
    const auto* leaf = find(key);
    if (leaf == nullptr) return;
    const auto node = list_of(*leaf);
    if (!node) return;
    if (!node->IsSequence()) return fail(*leaf, *node, "a list of numbers");
    std::vector<double> read;
    for (const auto& item : *node) {
      const auto number = parse_real(item);
      if (!number || *number < min || *number > max) {
        return fail(*leaf, item, fmt::format("numbers in [{}, {}]", min, max));
      }
      read.push_back(*number);
    }
    value = std::move(read);
  }
  void choice(const char* key,
              std::string& value,
              const std::vector<std::string>& choices,
              FieldInfo) override {
    const auto* leaf = find(key);
    if (leaf == nullptr) return;
    const auto read = text_of(leaf->node);
    if (std::find(choices.begin(), choices.end(), read) == choices.end()) {
      fail(*leaf, leaf->node, fmt::format("one of {}", fmt::join(choices, ", ")));
    } else {
      value = read;
    }
  }

 private:
  static std::optional<double> parse_real(const YAML::Node& node) {
    if (!node.IsScalar()) return std::nullopt;
    const std::string& text = node.Scalar();
    double value = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool is_number = error == std::errc{} && stop == text.data() + text.size();
    return is_number && std::isfinite(value) ? std::optional(value) : std::nullopt;
  }
  std::string path_of(const std::string& key) const {
    return join_path(sections_.empty() ? "" : sections_.back(), key);
  }
  const ConfigLeaf* find(const std::string& key) const { return tree_.find(path_of(key)); }
  void fail(const ConfigLeaf& leaf, const YAML::Node& node, const std::string& expected) {
    tree_.add_fault(
        leaf,
        fmt::format(
            "{}: expected {}, got '{}'", tree_.place_of(leaf, node), expected, text_of(node)));
  }
  // An override is one text; `[a, b]` is read as a list only if the key is a list.
  std::optional<YAML::Node> list_of(const ConfigLeaf& leaf) {
    if (!leaf.is_override || !leaf.node.Scalar().starts_with('[')) return leaf.node;
    try {
      return YAML::Load(leaf.node.Scalar());
    } catch (const YAML::Exception&) {
      fail(leaf, leaf.node, "a list as [a, b]");
      return std::nullopt;
    }
  }
  std::optional<std::vector<std::string>> texts_of(const ConfigLeaf& leaf) {
    const auto node = list_of(leaf);
    if (!node) return std::nullopt;
    std::vector<std::string> read;
    if (node->IsScalar()) {
      if (!node->Scalar().empty()) read.push_back(node->Scalar());
      return read;
    }
    if (!node->IsSequence()) {
      fail(leaf, *node, "a list of texts");
      return std::nullopt;
    }
    for (const auto& item : *node) {
      if (!item.IsScalar()) {
        fail(leaf, item, "a list of texts");
        return std::nullopt;
      }
      read.push_back(item.Scalar());
    }
    return read;
  }
  std::string expanded(const std::string& path, const ConfigLeaf& leaf) {
    if (paths_ == PathSyntax::kLiteral) return path;
    try {
      return expand_path(path, tree_.place_of(leaf, leaf.node));
    } catch (const Error& error) {
      tree_.add_fault(leaf, error.what());
      return path;
    }
  }

  ConfigTree& tree_;
  PathSyntax paths_;
  std::vector<std::string> sections_;
};

// The YAML parser accepts any bytes; the JSON writer accepts UTF-8 only.
void check_utf8(const std::string& text, const std::string& source_name) {
  try {
    nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(fmt::format("{}: expected UTF-8 text, got other bytes", source_name));
  }
}

// One document that is a map.
YAML::Node parse_document(const std::string& text, const std::string& source_name) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  StrictEvents events(source_name);
  while (parser.HandleNextDocument(events)) {
  }
  const auto documents = YAML::LoadAll(text);
  if (documents.empty() || documents[0].IsNull()) {
    throw Error(fmt::format("{}: expected a configuration, got an empty text", source_name));
  }
  if (documents.size() > 1) {
    throw Error(fmt::format("{}: expected one document, got {}", source_name, documents.size()));
  }
  if (!documents[0].IsMap()) {
    throw Error(fmt::format("{}: expected sections of keys", source_name));
  }
  return documents[0];
}

std::vector<std::string> with_count(const std::string& source_name,
                                    std::vector<std::string> faults) {
  if (faults.size() > 1) faults.push_back(fmt::format("{}: {} errors", source_name, faults.size()));
  return faults;
}

// Lists the given keys that need another value of another key.
class UnusedKeys final : public ConfigVisitor {
 public:
  explicit UnusedKeys(const GivenKeys& given) : given_(given) {}
  void begin_section(const char* name, const char*) override { sections_.push_back(path_of(name)); }
  void end_section() override { sections_.pop_back(); }
  void integer(const char* key, int64_t& value, int64_t, int64_t, FieldInfo info) override {
    add(key, info, value != 0);
  }
  void real(const char* key, double& value, double, double, FieldInfo info) override {
    add(key, info, value != 0);
  }
  void boolean(const char* key, bool& value, FieldInfo info) override { add(key, info, value); }
  void text(const char* key, std::string&, FieldInfo info) override { add(key, info, true); }
  void text_list(const char* key, std::vector<std::string>&, FieldInfo info) override {
    add(key, info, true);
  }
  void number_list(const char* key, std::vector<double>&, double, double, FieldInfo info) override {
    add(key, info, true);
  }
  void choice(const char* key,
              std::string&,
              const std::vector<std::string>&,
              FieldInfo info) override {
    add(key, info, true);
  }

  std::vector<std::string> lines;

 private:
  std::string path_of(const std::string& key) const {
    return join_path(sections_.empty() ? "" : sections_.back(), key);
  }
  void add(const std::string& key, const FieldInfo& info, bool is_on) {
    const auto* place = given_.find(path_of(key));
    if (place == nullptr || info.needs == nullptr || !is_on) return;
    const std::string needs = info.needs;
    const auto* kind = given_.find(needs.substr(0, needs.find(':')));
    // A kind of the command line leaves the file's keys of another kind without effect.
    if (kind != nullptr && kind->is_override && !place->is_override) return;
    lines.push_back(
        fmt::format("{}: this config does not use the key; it needs {}", place->text, info.needs));
  }

  const GivenKeys& given_;
  std::vector<std::string> sections_;
};

}  // namespace

const GivenKeys::Place* GivenKeys::find(const std::string& key) const {
  const auto found = places_.find(key);
  return found == places_.end() ? nullptr : &found->second;
}

std::set<std::string> GivenKeys::names() const {
  std::set<std::string> names;
  for (const auto& [key, place] : places_) names.insert(key);
  return names;
}

ConfigError::ConfigError(const std::string& source_name, std::vector<std::string> faults)
    : Error(fmt::format("{}", fmt::join(with_count(source_name, faults), "\n"))),
      lines_(with_count(source_name, faults)) {}

GivenKeys read_config_text(const std::string& text,
                           const std::string& source_name,
                           const std::vector<std::string>& overrides,
                           const Describe& describe,
                           const ReadOptions& options) {
  if (text.size() > kMaxBytes) {
    throw Error(
        fmt::format("{}: expected at most {} bytes, got {}", source_name, kMaxBytes, text.size()));
  }
  check_utf8(text, source_name);
  for (const auto& override_text : overrides) check_utf8(override_text, "override");
  try {
    const auto root = parse_document(text, source_name);
    ConfigTree tree(source_name, config_keys(describe), options);
    tree.add_text(root);
    for (const auto& override_text : overrides) tree.add_override(override_text);
    TreeReader reader(tree, options.paths);
    describe(reader);
    auto faults = tree.take_faults();
    if (!faults.empty()) throw ConfigError(source_name, std::move(faults));
    return tree.given();
  } catch (const YAML::Exception& error) {
    throw Error(fmt::format("{}:{}: not YAML: {}", source_name, error.mark.line + 1, error.msg));
  }
}

GivenKeys read_config_file(const std::string& path,
                           const std::vector<std::string>& overrides,
                           const Describe& describe,
                           const ReadOptions& options) {
  return read_config_text(
      read_file(posix_io(), path, kMaxBytes), path, overrides, describe, options);
}

std::vector<std::string> unused_keys(const Describe& describe, const GivenKeys& given) {
  UnusedKeys unused(given);
  describe(unused);
  return std::move(unused.lines);
}

}  // namespace dsmoe
