#include "train/config_aliases.h"

#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "common/error.h"
#include "train/config_file.h"

namespace dsmoe {
namespace {

// Lists the keys of a run with a value that each accepts, other than its default.
class ListValues final : public ConfigVisitor {
 public:
  void begin_section(const char* name, const char*) override { path_.push_back(path_of(name)); }
  void end_section() override { path_.pop_back(); }
  void integer(const char* key, int64_t& value, int64_t, int64_t max, FieldInfo) override {
    // A factor keeps the sizes of a model consistent.
    values[path_of(key)] = std::to_string(std::min(value > 0 ? 2 * value : 7, max));
  }
  void real(const char* key, double& value, double, double max, FieldInfo) override {
    values[path_of(key)] = std::to_string(value < max ? (value + max) / 2 : max / 2);
  }
  void boolean(const char* key, bool& value, FieldInfo) override {
    values[path_of(key)] = value ? "false" : "true";
  }
  void text(const char* key, std::string&, FieldInfo) override { values[path_of(key)] = "2"; }
  void text_list(const char* key, std::vector<std::string>&, FieldInfo) override {
    values[path_of(key)] = "some";
  }
  void number_list(const char* key, std::vector<double>&, double, double, FieldInfo) override {
    values[path_of(key)] = "[1]";
  }
  void choice(const char* key,
              std::string& value,
              const std::vector<std::string>& choices,
              FieldInfo) override {
    values[path_of(key)] = value == choices[0] ? choices[1] : choices[0];
  }

  std::map<std::string, std::string> values;
  std::set<std::string> sections() const {
    std::set<std::string> all;
    for (const auto& [key, value] : values) {
      for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', dot + 1)) {
        all.insert(key.substr(0, dot));
      }
    }
    return all;
  }

 private:
  std::string path_of(const std::string& key) const {
    return path_.empty() ? key : path_.back() + "." + key;
  }
  std::vector<std::string> path_;
};

ListValues alias_schema() {
  ListValues list;
  RunConfig config;
  describe(list, config);
  return list;
}

std::vector<ConfigChange> alias_changes(RunConfig before, RunConfig after) {
  return compare_configs([&](ConfigVisitor& v) { describe(v, before); },
                         [&](ConfigVisitor& v) { describe(v, after); });
}

std::string alias_value(const KeyAlias& alias, const std::string& value) {
  return alias.value == "{}" ? value : "2";
}

TEST_CASE("aliases: every name is read as its key at every place, with one note that names it",
          "[train][config]") {
  const auto list = alias_schema();
  for (const auto& alias : run_config_aliases()) {
    const std::string name(alias.name);
    const std::string key(alias.key);
    if (key.empty()) continue;
    CAPTURE(name, key);
    REQUIRE(list.values.count(key) == 1);
    const auto value = alias_value(alias, list.values.at(key));
    for (const std::string place : {"", "train", "model", "data", "train.optimizer"}) {
      const auto path = place.empty() ? name : place + "." + name;
      if (list.values.count(path) > 0) continue;  // a key of its own
      CAPTURE(place);
      RunConfig by_override;
      const auto given =
          read_run_config_text("seed: 0", "t.yaml", {path + "=" + value}, by_override);
      CHECK(given.contains(key));
      REQUIRE_FALSE(given.notes.empty());
      CHECK(given.notes[0].starts_with("--" + path + " is read as " + key));

      std::string text;
      std::string indent;
      for (size_t begin = 0, dot; begin < path.size(); begin = dot + 1, indent += "  ") {
        dot = std::min(path.find('.', begin), path.size());
        text += indent + path.substr(begin, dot - begin) + ":" + (dot < path.size() ? "\n" : "");
      }
      RunConfig by_file;
      read_run_config_text(text + " " + value + "\n", "t.yaml", {}, by_file);
      CHECK(alias_changes(by_override, by_file).empty());
      CHECK_FALSE(alias_changes(RunConfig{}, by_file).empty());
      CHECK_NOTHROW(check_used_keys(by_file, given));
    }
  }
}

TEST_CASE("aliases: a name beside its key in one file is refused", "[train][config]") {
  const auto list = alias_schema();
  for (const auto& alias : run_config_aliases()) {
    const std::string name(alias.name);
    const std::string key(alias.key);
    if (key.empty() || key == name) continue;
    CAPTURE(name, key);
    const auto value = list.values.at(key);
    std::string text;
    std::string indent;
    for (size_t begin = 0, dot; begin < key.size(); begin = dot + 1, indent += "  ") {
      dot = std::min(key.find('.', begin), key.size());
      text += indent + key.substr(begin, dot - begin) + ":" + (dot < key.size() ? "\n" : "");
    }
    RunConfig config;
    CHECK_THROWS_WITH(
        read_run_config_text(text + " " + value + "\n" + name + ": " + alias_value(alias, value),
                             "t.yaml",
                             {},
                             config),
        Catch::Contains(name + " (" + key + "): line"));
  }
}

TEST_CASE("aliases: names are plain and unique, and a refused one says what to write",
          "[train][config]") {
  const auto list = alias_schema();
  std::set<std::string> names;
  for (const auto& alias : run_config_aliases()) {
    const std::string name(alias.name);
    CAPTURE(name);
    CHECK(names.insert(name).second);
    CHECK(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos);
    if (!alias.key.empty()) continue;
    RunConfig config;
    CHECK_THROWS_WITH(read_run_config_text(name + ": 1", "t.yaml", {}, config),
                      "t.yaml:1: " + name + ": " + std::string(alias.refusal));
  }
  CHECK(names.size() > 100);
  for (const auto& alias : run_config_section_aliases()) {
    CAPTURE(alias.name);
    CHECK(list.sections().count(std::string(alias.section)) == 1);
    CHECK(list.sections().count(std::string(alias.name)) == 0);
  }
}

}  // namespace
}  // namespace dsmoe
