#include "common/config_reader.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <sstream>

#include "common/error.h"
#include "common/io.h"
#include "common/path_expansion.h"

namespace dsmoe {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxDepth = 32;

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row.back();
}

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

class TreeReader final : public ConfigVisitor {
 public:
  TreeReader(const YAML::Node& root,
             std::string source,
             std::set<std::string> overridden,
             PathSyntax paths)
      : source_(std::move(source)), overridden_(std::move(overridden)), paths_(paths) {
    open(root, "");
  }
  /// Returns the keys that the text sets.
  std::set<std::string> finish() {
    close();
    return std::move(set_);
  }

  void begin_section(const char* name, const char*) override {
    const std::string path = path_of(name);
    open(take(name), path);
  }
  void end_section() override { close(); }

  void integer(const char* key, int64_t& value, int64_t min, int64_t max, FieldInfo) override {
    const auto node = take(key);
    if (!node.IsDefined()) return;
    int64_t read = 0;
    if (!parse(node, read)) fail(node, path_of(key), "an integer", text_of(node));
    if (read < min || read > max) {
      fail(node, path_of(key), fmt::format("a value in [{}, {}]", min, max), text_of(node));
    }
    value = read;
  }
  void real(const char* key, double& value, double min, double max, FieldInfo) override {
    const auto node = take(key);
    if (!node.IsDefined()) return;
    double read = 0;
    if (!parse(node, read) || !std::isfinite(read)) {
      fail(node, path_of(key), "a finite number", text_of(node));
    }
    if (read < min || read > max) {
      fail(node, path_of(key), fmt::format("a value in [{}, {}]", min, max), text_of(node));
    }
    value = read;
  }
  void boolean(const char* key, bool& value, FieldInfo) override {
    const auto node = take(key);
    if (!node.IsDefined()) return;
    const std::string read = text_of(node);
    if (read != "true" && read != "false") fail(node, path_of(key), "true or false", read);
    value = read == "true";
  }
  void text(const char* key, std::string& value, FieldInfo) override {
    const auto node = take(key);
    if (!node.IsDefined()) return;
    if (!node.IsScalar()) fail(node, path_of(key), "a text", text_of(node));
    value = node.Scalar();
  }
  void text_list(const char* key, std::vector<std::string>& value, FieldInfo) override {
    const auto node = take_list(key);
    if (!node.IsDefined()) return;
    std::vector<std::string> read;
    if (node.IsScalar()) {
      value = node.Scalar().empty() ? read : std::vector<std::string>{node.Scalar()};
      return;
    }
    if (!node.IsSequence()) fail(node, path_of(key), "a list of texts", text_of(node));
    for (const auto& item : node) {
      if (!item.IsScalar()) fail(item, path_of(key), "a list of texts", "a nested value");
      read.push_back(item.Scalar());
    }
    value = std::move(read);
  }
  void path(const char* key, std::string& value, FieldInfo info) override {
    text(key, value, info);
    const auto node = find(key);
    if (node.IsDefined()) value = expanded(value, node, path_of(key));
  }
  void path_list(const char* key, std::vector<std::string>& value, FieldInfo info) override {
    text_list(key, value, info);
    const auto node = find(key);
    if (!node.IsDefined()) return;
    for (auto& item : value) item = expanded(item, node, path_of(key));
  }
  void number_list(const char* key,
                   std::vector<double>& value,
                   double min,
                   double max,
                   FieldInfo) override {
    const auto node = take_list(key);
    if (!node.IsDefined()) return;
    if (!node.IsSequence()) fail(node, path_of(key), "a list of numbers", text_of(node));
    std::vector<double> read;
    for (const auto& item : node) {
      double number = 0;
      if (!parse(item, number) || !(number >= min && number <= max)) {
        fail(item, path_of(key), fmt::format("numbers in [{}, {}]", min, max), text_of(item));
      }
      read.push_back(number);
    }
    value = std::move(read);
  }
  void choice(const char* key,
              std::string& value,
              const std::vector<std::string>& choices,
              FieldInfo) override {
    const auto node = take(key);
    if (!node.IsDefined()) return;
    const std::string read = text_of(node);
    if (std::find(choices.begin(), choices.end(), read) == choices.end()) {
      fail(node, path_of(key), fmt::format("one of {}", fmt::join(choices, ", ")), read);
    }
    value = read;
  }

 private:
  struct Section {
    YAML::Node node;
    std::string path;
    std::vector<std::string> known;
  };

  template <class Number>
  static bool parse(const YAML::Node& node, Number& value) {
    if (!node.IsScalar()) return false;
    const std::string& text = node.Scalar();
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && stop == text.data() + text.size();
  }
  static std::string text_of(const YAML::Node& node) {
    if (node.IsScalar()) return node.Scalar();
    return node.IsMap() ? "a section" : node.IsSequence() ? "a list" : "nothing";
  }
  std::string path_of(const std::string& key) const {
    const auto& path = sections_.back().path;
    return path.empty() ? key : path + "." + key;
  }
  [[noreturn]] void fail(const YAML::Node& node,
                         const std::string& key,
                         const std::string& expected,
                         const std::string& got) const {
    throw Error(fmt::format("{}: expected {}, got '{}'", place_of(node, key), expected, got));
  }
  std::string place_of(const YAML::Node& node, const std::string& key) const {
    return overridden_.count(key) > 0
               ? "--" + key
               : fmt::format("{}:{}: {}", source_, node.Mark().line + 1, key);
  }
  std::string expanded(const std::string& path,
                       const YAML::Node& node,
                       const std::string& key) const {
    return paths_ == PathSyntax::kLiteral ? path : expand_path(path, place_of(node, key));
  }
  void open(const YAML::Node& node, const std::string& path) {
    if (node.IsDefined() && !node.IsNull()) {
      if (!node.IsMap()) {
        throw Error(fmt::format("{}:{}: {}: expected a section of keys, got '{}'",
                                source_,
                                node.Mark().line + 1,
                                path,
                                text_of(node)));
      }
      std::set<std::string> seen;
      for (const auto& pair : node) {
        const std::string key = text_of(pair.first);
        if (!seen.insert(key).second) {
          throw Error(fmt::format("{}:{}: {}{}: this key appears twice",
                                  source_,
                                  pair.first.Mark().line + 1,
                                  path.empty() ? "" : path + ".",
                                  key));
        }
      }
    }
    sections_.push_back({node, path, {}});
  }
  // An override is one text; `[a, b]` is read as a list only if the key is a list.
  YAML::Node take_list(const std::string& key) {
    auto node = take(key);
    const bool is_override = overridden_.count(path_of(key)) > 0;
    if (!is_override || !node.IsDefined() || !node.Scalar().starts_with('[')) return node;
    try {
      return YAML::Load(node.Scalar());
    } catch (const YAML::Exception&) {
      fail(node, path_of(key), "a list as [a, b]", node.Scalar());
    }
  }
  YAML::Node take(const std::string& key) {
    sections_.back().known.push_back(key);
    return find(key);
  }
  YAML::Node find(const std::string& key) {
    const auto& section = sections_.back();
    if (!section.node.IsDefined() || !section.node.IsMap()) {
      return YAML::Node(YAML::NodeType::Undefined);
    }
    for (const auto& pair : section.node) {
      if (text_of(pair.first) != key) continue;
      if (!pair.second.IsMap()) set_.insert(path_of(key));
      return pair.second;
    }
    return YAML::Node(YAML::NodeType::Undefined);
  }
  void close() {
    const auto& section = sections_.back();
    if (section.node.IsDefined() && section.node.IsMap()) {
      for (const auto& pair : section.node) check_known(section, pair.first);
    }
    sections_.pop_back();
  }
  void check_known(const Section& section, const YAML::Node& key_node) const {
    const std::string key = text_of(key_node);
    const auto& known = section.known;
    if (std::find(known.begin(), known.end(), key) != known.end() || known.empty()) return;
    const auto nearest = std::min_element(known.begin(), known.end(), [&](auto& a, auto& b) {
      return edit_distance(key, a) < edit_distance(key, b);
    });
    const std::string prefix = section.path.empty() ? "" : section.path + ".";
    const std::string where =
        overridden_.count(prefix + key) > 0
            ? "--" + prefix + key
            : fmt::format("{}:{}: {}{}", source_, key_node.Mark().line + 1, prefix, key);
    throw Error(fmt::format("{}: unknown key; the nearest is {}{}", where, prefix, *nearest));
  }

  std::string source_;
  std::set<std::string> overridden_;
  PathSyntax paths_;
  std::set<std::string> set_;
  std::vector<Section> sections_;
};

// The YAML parser accepts any bytes; the JSON writer accepts UTF-8 only.
void check_utf8(const std::string& text, const std::string& source_name) {
  try {
    nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(fmt::format("{}: expected UTF-8 text, got other bytes", source_name));
  }
}

std::string apply_override(const YAML::Node& root, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw Error(fmt::format("override: expected section.key=value, got '{}'", text));
  }
  std::string path = text.substr(0, equals);
  YAML::Node node;
  node.reset(root);
  std::istringstream parts(path);
  std::vector<std::string> keys;
  for (std::string part; std::getline(parts, part, '.');) keys.push_back(part);
  for (size_t i = 0; i + 1 < keys.size(); ++i) {
    if (node[keys[i]].IsDefined() && node[keys[i]].IsScalar()) {
      throw Error(fmt::format("--{}: '{}' is a value, not a section", path, keys[i]));
    }
    node.reset(node[keys[i]]);
  }
  node[keys.back()] = YAML::Node(text.substr(equals + 1));
  return path;
}

}  // namespace

std::set<std::string> read_config_text(const std::string& text,
                                       const std::string& source_name,
                                       const std::vector<std::string>& overrides,
                                       const Describe& describe,
                                       PathSyntax paths) {
  if (text.size() > kMaxBytes) {
    throw Error(
        fmt::format("{}: expected at most {} bytes, got {}", source_name, kMaxBytes, text.size()));
  }
  check_utf8(text, source_name);
  for (const auto& override_text : overrides) check_utf8(override_text, "override");
  try {
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
    std::set<std::string> overridden;
    for (const auto& override_text : overrides) {
      overridden.insert(apply_override(documents[0], override_text));
    }
    TreeReader reader(documents[0], source_name, std::move(overridden), paths);
    describe(reader);
    return reader.finish();
  } catch (const YAML::Exception& error) {
    throw Error(fmt::format("{}:{}: not YAML: {}", source_name, error.mark.line + 1, error.msg));
  }
}

std::set<std::string> read_config_file(const std::string& path,
                                       const std::vector<std::string>& overrides,
                                       const Describe& describe,
                                       PathSyntax paths) {
  return read_config_text(read_file(posix_io(), path, kMaxBytes), path, overrides, describe, paths);
}

}  // namespace dsmoe
