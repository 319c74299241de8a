#include <fmt/format.h>
#include <yaml-cpp/yaml.h>
#include <nlohmann/json.hpp>

#include "common/config_reader.h"
#include "common/path_expansion.h"

namespace dsmoe {
namespace {

struct Field {
  std::string key;    // with its sections
  std::string value;  // shortest text that reads back the same
  std::string type;
  std::string range;
  FieldInfo info;
};

const char* rule_name(ResumeRule rule) {
  switch (rule) {
    case ResumeRule::kFixed:
      return "fixed";
    case ResumeRule::kApplied:
      return "applied";
    case ResumeRule::kFree:
      return "free";
  }
  return "";
}

// Changes no value: lists the fields for the table and emits the YAML.
class FieldLister final : public ConfigVisitor {
 public:
  FieldLister() { yaml << YAML::BeginMap; }
  void begin_section(const char* name, const char*) override {
    path_.emplace_back(name);
    yaml << YAML::Key << name << YAML::Value << YAML::BeginMap;
  }
  void end_section() override {
    path_.pop_back();
    yaml << YAML::EndMap;
  }
  void integer(const char* key, int64_t& value, int64_t min, int64_t max, FieldInfo info) override {
    add(key, fmt::format("{}", value), "integer", fmt::format("{} to {}", min, max), info);
  }
  void real(const char* key, double& value, double min, double max, FieldInfo info) override {
    add(key, fmt::format("{}", value), "number", fmt::format("{} to {}", min, max), info);
  }
  void boolean(const char* key, bool& value, FieldInfo info) override {
    add(key, value ? "true" : "false", "boolean", "", info);
  }
  void text(const char* key, std::string& value, FieldInfo info) override {
    yaml << YAML::Key << key << YAML::Value << YAML::DoubleQuoted << value;
    list(key, value, "text", "", info);
  }
  void text_list(const char* key, std::vector<std::string>& value, FieldInfo info) override {
    add_list(key, value);
    list(key, fmt::format("[{}]", fmt::join(value, ", ")), "list of texts", "", info);
  }
  void path(const char* key, std::string& value, FieldInfo info) override {
    yaml << YAML::Key << key << YAML::Value << YAML::DoubleQuoted << quote_path(value);
    list(key, value, "path", "", info);
  }
  void path_list(const char* key, std::vector<std::string>& value, FieldInfo info) override {
    std::vector<std::string> quoted;
    for (const auto& item : value) quoted.push_back(quote_path(item));
    add_list(key, quoted);
    list(key, fmt::format("[{}]", fmt::join(value, ", ")), "list of paths", "", info);
  }
  void number_list(const char* key,
                   std::vector<double>& value,
                   double min,
                   double max,
                   FieldInfo info) override {
    yaml << YAML::Key << key << YAML::Value << YAML::Flow << YAML::BeginSeq;
    for (const double item : value) yaml << fmt::format("{}", item);
    yaml << YAML::EndSeq;
    list(key,
         fmt::format("[{}]", fmt::join(value, ", ")),
         "list of numbers",
         fmt::format("{} to {}", min, max),
         info);
  }
  void choice(const char* key,
              std::string& value,
              const std::vector<std::string>& choices,
              FieldInfo info) override {
    add(key, value, "choice", fmt::format("{}", fmt::join(choices, ", ")), info);
  }

  std::vector<Field> fields;
  YAML::Emitter yaml;

 private:
  std::string name(const std::string& key) const {
    return path_.empty() ? key : fmt::format("{}.{}", fmt::join(path_, "."), key);
  }
  void add(const char* key,
           std::string value,
           const char* type,
           std::string range,
           FieldInfo info) {
    yaml << YAML::Key << key << YAML::Value << value;
    list(key, std::move(value), type, std::move(range), info);
  }
  void add_list(const char* key, const std::vector<std::string>& items) {
    yaml << YAML::Key << key << YAML::Value << YAML::Flow << YAML::BeginSeq;
    for (const auto& item : items) yaml << YAML::DoubleQuoted << item;
    yaml << YAML::EndSeq;
  }
  void list(const char* key,
            std::string value,
            const char* type,
            std::string range,
            FieldInfo info) {
    fields.push_back({name(key), std::move(value), type, std::move(range), info});
  }
  std::vector<std::string> path_;
};

class JsonWriter final : public ConfigVisitor {
 public:
  void begin_section(const char* name, const char*) override {
    sections_.push_back(&(*sections_.back())[name]);
  }
  void end_section() override { sections_.pop_back(); }
  void integer(const char* key, int64_t& value, int64_t, int64_t, FieldInfo) override {
    (*sections_.back())[key] = value;
  }
  void real(const char* key, double& value, double, double, FieldInfo) override {
    (*sections_.back())[key] = value;
  }
  void boolean(const char* key, bool& value, FieldInfo) override {
    (*sections_.back())[key] = value;
  }
  void text(const char* key, std::string& value, FieldInfo) override {
    (*sections_.back())[key] = value;
  }
  void text_list(const char* key, std::vector<std::string>& value, FieldInfo) override {
    (*sections_.back())[key] = value;
  }
  void number_list(const char* key,
                   std::vector<double>& value,
                   double,
                   double,
                   FieldInfo) override {
    (*sections_.back())[key] = value;
  }
  void choice(const char* key,
              std::string& value,
              const std::vector<std::string>&,
              FieldInfo) override {
    (*sections_.back())[key] = value;
  }
  std::string text_of_all() const { return root_.dump(2) + "\n"; }

 private:
  nlohmann::ordered_json root_ = nlohmann::ordered_json::object();
  std::vector<nlohmann::ordered_json*> sections_{&root_};
};

// Escapes bars, which would end the cell.
std::string in_table(const std::string& value) {
  std::string cell;
  for (const char c : value) cell += c == '|' ? "\\|" : std::string(1, c);
  return cell;
}

std::vector<Field> list_fields(const Describe& describe) {
  FieldLister lister;
  describe(lister);
  return std::move(lister.fields);
}

}  // namespace

std::vector<std::string> config_keys(const Describe& describe) {
  std::vector<std::string> keys;
  for (auto& field : list_fields(describe)) keys.push_back(std::move(field.key));
  return keys;
}

std::string config_to_yaml(const Describe& describe) {
  FieldLister lister;
  describe(lister);
  lister.yaml << YAML::EndMap;
  return std::string(lister.yaml.c_str()) + "\n";
}

std::string config_to_json(const Describe& describe) {
  JsonWriter writer;
  describe(writer);
  return writer.text_of_all();
}

std::string config_to_markdown(const Describe& describe) {
  std::string table =
      "| key | type | unit | default | range | on resume | meaning |\n"
      "| --- | --- | --- | --- | --- | --- | --- |\n";
  for (const auto& field : list_fields(describe)) {
    table += fmt::format("| `{}` | {} | {} | `{}` | {} | {} | {} |\n",
                         field.key,
                         field.type,
                         field.info.unit,
                         in_table(field.value),
                         field.range,
                         rule_name(field.info.resume),
                         field.info.doc);
  }
  return table;
}

std::vector<ConfigChange> compare_configs(const Describe& old_configs,
                                          const Describe& new_configs) {
  const auto before = list_fields(old_configs);
  const auto after = list_fields(new_configs);
  std::vector<ConfigChange> changes;
  for (size_t i = 0; i < before.size() && i < after.size(); ++i) {
    if (before[i].value == after[i].value) continue;
    changes.push_back({before[i].key,
                       before[i].value,
                       after[i].value,
                       before[i].info.resume,
                       after[i].info.init});
  }
  return changes;
}

}  // namespace dsmoe
