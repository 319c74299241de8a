#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace dsmoe {

/// Position of a walk through JSON: inside one of the named tables (`model.vocab`) or outside.
class JsonPlace {
 public:
  explicit JsonPlace(const std::vector<std::string>& tables) : tables_(tables) {}

  void open(bool is_array);
  void key(const std::string& name) { keys_.back() = name; }
  void close();

  size_t depth() const { return keys_.size(); }
  bool in_table() const { return table_depth_ != 0; }
  /// In a list that is an entry of a table.
  bool in_entry() const { return in_table() && keys_.size() > table_depth_; }
  bool table_is_array() const { return table_is_array_; }
  const std::string& table_name() const { return keys_[table_depth_ - 2]; }

 private:
  bool is_table() const;

  const std::vector<std::string>& tables_;
  std::vector<std::string> keys_;  // per open level, the member that is being read
  size_t table_depth_ = 0;         // levels at the top of the table; 0: outside
  bool table_is_array_ = false;
};

/// One entry of a table: a member's name and number, a text of a list, or a pair of texts of a
/// list.
struct JsonTableEntry {
  std::vector<std::string> texts;
  uint64_t number = 0;
  bool is_pair = false;
};

/// Walks a table of a text that parse_json has accepted, in the order of the text, without building
/// it.
void read_json_table(const std::string& text,
                     const std::string& table,
                     const std::function<void(const JsonTableEntry&)>& visit);

}  // namespace dsmoe
