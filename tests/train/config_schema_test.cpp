// Bad values for every key of a run, generated from its description.
#include <fmt/format.h>

#include <catch2/catch.hpp>

#include "common/config_reader.h"
#include "common/error.h"
#include "train/train_config.h"

namespace dsmoe {
namespace {

using Catch::Contains;

struct Key {
  std::vector<std::string> path;  // sections, then the key
  std::vector<std::string> bad_values;
};

class ListKeys final : public ConfigVisitor {
 public:
  void begin_section(const char* name, const char*) override {
    path_.emplace_back(name);
    sections.push_back(path_);
  }
  void end_section() override { path_.pop_back(); }
  void integer(const char* key, int64_t&, int64_t min, int64_t max, FieldInfo) override {
    add(key,
        {std::to_string(min - 1),
         std::to_string(max + 1),
         "1.5",
         "many",
         "'1 2'",
         "[1]",
         "{a: 1}",
         "0x10",
         "1e-3",
         "1.5e0",
         "2kk",
         "1__0",
         "99999999999999999999",
         "true",
         "~"});
  }
  void real(const char* key, double&, double min, double max, FieldInfo) override {
    add(key,
        {fmt::format("{}", min - 1),
         fmt::format("{}", max + 1),
         ".nan",
         "nan",
         ".inf",
         "-.inf",
         "many",
         "[1.0]",
         "{a: 1}",
         "1,5",
         "true",
         "~"});
  }
  void boolean(const char* key, bool&, FieldInfo) override {
    add(key, {"yes", "on", "1", "True", "[true]", "{a: true}", "~"});
  }
  void text(const char* key, std::string&, FieldInfo) override { add(key, {"[a]", "{a: b}"}); }
  void text_list(const char* key, std::vector<std::string>&, FieldInfo) override {
    add(key, {"{a: b}", "[[a]]", "[{a: b}]"});
  }
  void number_list(const char* key,
                   std::vector<double>&,
                   double min,
                   double max,
                   FieldInfo) override {
    add(key,
        {"1",
         "{a: 1}",
         "[many]",
         "[[1]]",
         "[.nan]",
         fmt::format("[{}]", min - 1),
         fmt::format("[{}]", max + 1)});
  }
  void choice(const char* key, std::string&, const std::vector<std::string>&, FieldInfo) override {
    add(key, {"other", "[a]", "{a: b}", "~"});
  }

  std::vector<Key> keys;
  std::vector<std::vector<std::string>> sections;

 private:
  void add(const char* key, std::vector<std::string> bad_values) {
    auto path = path_;
    path.emplace_back(key);
    keys.push_back({path, std::move(bad_values)});
  }
  std::vector<std::string> path_;
};

ListKeys schema() {
  ListKeys list;
  RunConfig config;
  describe(list, config);
  return list;
}

// One line per section and one for the key.
std::string yaml_of(const std::vector<std::string>& path, const std::string& value) {
  std::string text, indent;
  for (size_t i = 0; i + 1 < path.size(); ++i, indent += "  ") text += indent + path[i] + ":\n";
  return text + indent + path.back() + ": " + value + "\n";
}

std::string error_of(const std::string& text) {
  RunConfig config;
  try {
    read_config_text(
        text, "run.yaml", {}, [&](ConfigVisitor& visitor) { describe(visitor, config); });
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_CASE("RunConfig: the error for a bad value names file, line, key and expected value",
          "[train][config]") {
  const auto list = schema();
  CHECK(list.keys.size() > 60);
  for (const auto& key : list.keys) {
    for (const auto& value : key.bad_values) {
      const auto text = yaml_of(key.path, value);
      CAPTURE(text);
      CHECK_THAT(error_of(text),
                 Catch::StartsWith(fmt::format(
                     "run.yaml:{}: {}: expected ", key.path.size(), fmt::join(key.path, "."))));
    }
  }
}

TEST_CASE("RunConfig: the error for a repeated key names the second place", "[train][config]") {
  for (const auto& key : schema().keys) {
    const auto once = yaml_of(key.path, "1");
    const auto last_line = once.substr(once.rfind('\n', once.size() - 2) + 1);
    CHECK_THAT(error_of(once + last_line),
               Contains(fmt::format("run.yaml:{}: {}: this key appears twice",
                                    key.path.size() + 1,
                                    fmt::join(key.path, "."))));
  }
}

TEST_CASE("RunConfig: an unknown key is refused at each level, with the nearest known one",
          "[train][config]") {
  for (const auto& key : schema().keys) {
    auto path = key.path;
    path.back() += "zz";
    CHECK_THAT(error_of(yaml_of(path, "1")),
               Contains(fmt::format("run.yaml:{}: {}: unknown key; the nearest is {}",
                                    path.size(),
                                    fmt::join(path, "."),
                                    fmt::join(key.path, "."))));
  }
}

TEST_CASE("RunConfig: a section that is no section is refused", "[train][config]") {
  for (const auto& section : schema().sections) {
    for (const std::string value : {"1", "[a]", "text"}) {
      CHECK_THAT(error_of(yaml_of(section, value)),
                 Contains(fmt::format("run.yaml:{}: {}: expected a section of keys",
                                      section.size(),
                                      fmt::join(section, "."))));
    }
  }
}

}  // namespace
}  // namespace dsmoe
