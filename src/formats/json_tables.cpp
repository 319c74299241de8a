#include "formats/json_tables.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace dsmoe {
namespace {

using Json = nlohmann::json;

class TableReader final : public nlohmann::json_sax<Json> {
 public:
  TableReader(const std::vector<std::string>& tables,
              const std::function<void(const JsonTableEntry&)>& visit)
      : place_(tables), visit_(visit) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool number_unsigned(number_unsigned_t number) override {
    if (!place_.in_table() || place_.table_is_array()) return true;
    entry_.number = number;
    return give();
  }
  bool string(string_t& text) override {
    if (!place_.in_table()) return true;
    entry_.texts.push_back(std::move(text));
    return place_.in_entry() || give();
  }
  bool binary(binary_t&) override { return true; }
  bool key(string_t& name) override {
    if (place_.in_table()) {
      entry_.texts.push_back(std::move(name));
    } else {
      place_.key(name);
    }
    return true;
  }
  bool start_object(size_t) override { return open(/*is_array=*/false); }
  bool start_array(size_t) override { return open(/*is_array=*/true); }
  bool end_object() override { return close(); }
  bool end_array() override {
    if (place_.in_entry()) {
      entry_.is_pair = true;
      give();
    }
    return close();
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  bool open(bool is_array) {
    place_.open(is_array);
    return true;
  }
  bool close() {
    place_.close();
    return true;
  }
  bool give() {
    visit_(entry_);
    entry_.texts.clear();
    entry_.is_pair = false;
    return true;
  }

  JsonPlace place_;
  JsonTableEntry entry_;
  const std::function<void(const JsonTableEntry&)>& visit_;
};

}  // namespace

void JsonPlace::open(bool is_array) {
  if (!in_table() && is_table()) {
    table_depth_ = keys_.size() + 1;
    table_is_array_ = is_array;
  }
  keys_.emplace_back();
}

void JsonPlace::close() {
  keys_.pop_back();
  if (keys_.size() < table_depth_) table_depth_ = 0;
}

bool JsonPlace::is_table() const {
  if (tables_.empty() || keys_.empty()) return false;
  std::string path;
  for (const auto& key : keys_) path += (path.empty() ? "" : ".") + key;
  return std::find(tables_.begin(), tables_.end(), path) != tables_.end();
}

void read_json_table(const std::string& text,
                     const std::string& table,
                     const std::function<void(const JsonTableEntry&)>& visit) {
  const std::vector<std::string> tables{table};
  TableReader reader(tables, visit);
  Json::sax_parse(text, &reader);
}

}  // namespace dsmoe
