#include "formats/json_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>
#include <string_view>

#include "common/error.h"
#include "formats/json_tables.h"

namespace dsmoe {
namespace {

using Json = nlohmann::json;
constexpr size_t kMaxDepth = 64;
// In memory, with the allocator's overhead; arrays as at the moment of their growth.
constexpr size_t kElementBytes = 3 * sizeof(Json);
constexpr size_t kMemberBytes = 104;
constexpr size_t kContainerBytes = 64;
constexpr size_t kTextBytes = 48;

// Returns the bytes that a text of this length has outside its object.
size_t heap_bytes(size_t length) { return length < sizeof(std::string) / 2 ? 0 : length + 32; }

// The longest text or number, which the parser holds whole.
size_t longest_token(std::string_view text) {
  constexpr std::string_view kSigns = "{}[],: \t\r\n";
  size_t longest = 0;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin + 1;
    if (text[begin] == '"') {
      while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
      end = std::min(end + 1, text.size());
    } else if (kSigns.find(text[begin]) == kSigns.npos) {
      end = std::min(text.find_first_of("{}[],: \t\r\n\"", begin), text.size());
    }
    longest = std::max(longest, end - begin);
    begin = end;
  }
  return longest;
}

// Walks a text without building anything: syntax, depth, size of the tree, form of the tables.
class Inspector final : public nlohmann::json_sax<Json> {
 public:
  Inspector(const std::string& source_name, const JsonLimits& limits)
      : source_name_(source_name), limits_(limits), place_(limits.tables) {}

  bool null() override { return item(Kind::kOther); }
  bool boolean(bool) override { return item(Kind::kOther); }
  bool number_integer(number_integer_t) override { return item(Kind::kNumber); }
  bool number_unsigned(number_unsigned_t) override { return item(Kind::kCount); }
  bool number_float(number_float_t, const string_t&) override { return item(Kind::kNumber); }
  bool string(string_t& text) override {
    if (!place_.in_table()) add(kTextBytes + heap_bytes(text.size()));
    return item(Kind::kText);
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(/*is_array=*/false); }
  bool key(string_t& name) override {
    if (place_.in_table()) return true;
    add(kMemberBytes + heap_bytes(name.size()));
    auto& level = levels_.back();
    place_.key(name);
    if (level.keys.insert(name).second) return true;
    throw Error(fmt::format("{}: JSON key '{}' appears twice", source_name_, name));
  }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(/*is_array=*/true); }
  bool end_array() override {
    if (place_.in_entry() && levels_.back().n_items != 2) fail_table();
    return close();
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    throw Error(fmt::format("{}: not JSON: {}", source_name_, error.what()));
  }

 private:
  enum class Kind { kText, kCount, kNumber, kOther };
  struct Level {
    bool is_array = false;
    size_t n_items = 0;
    std::set<std::string> keys;
  };

  [[noreturn]] void fail_table() const {
    throw Error(fmt::format("{}: '{}': expected {}",
                            source_name_,
                            place_.table_name(),
                            place_.table_is_array() ? "texts or pairs" : "whole numbers"));
  }

  void add(size_t bytes) {
    bytes_ += bytes;
    if (bytes_ <= limits_.max_tree_bytes) return;
    throw Error(fmt::format(
        "{}: JSON would take more than {} bytes of memory", source_name_, limits_.max_tree_bytes));
  }
  bool item(Kind kind) {
    const bool fits = !place_.in_table()        ? true
                      : place_.in_entry()       ? kind != Kind::kOther
                      : place_.table_is_array() ? kind == Kind::kText
                                                : kind == Kind::kCount;
    if (!fits) fail_table();
    if (levels_.empty()) return true;
    ++levels_.back().n_items;
    if (!place_.in_table() && levels_.back().is_array) add(kElementBytes);
    return true;
  }
  bool open(bool is_array) {
    if (place_.in_table()) {
      if (!is_array || !place_.table_is_array() || place_.in_entry()) fail_table();
      ++levels_.back().n_items;
    } else {
      item(Kind::kOther);
      add(kContainerBytes);
    }
    place_.open(is_array);
    levels_.push_back({.is_array = is_array, .n_items = 0, .keys = {}});
    if (levels_.size() > kMaxDepth) {
      throw Error(fmt::format("{}: JSON is deeper than {} levels", source_name_, kMaxDepth));
    }
    return true;
  }
  bool close() {
    place_.close();
    levels_.pop_back();
    return true;
  }

  const std::string& source_name_;
  const JsonLimits& limits_;
  std::vector<Level> levels_;
  JsonPlace place_;
  size_t bytes_ = 0;
};

// Passes on the part of the parser's events that goes into the tree: all but the entries of tables.
class TreeFilter {
 public:
  explicit TreeFilter(const std::vector<std::string>& tables) : place_(tables) {}

  bool operator()(Json::parse_event_t event, const Json& parsed) {
    using Event = Json::parse_event_t;
    switch (event) {
      case Event::object_start:
      case Event::array_start: {
        const bool is_kept = !place_.in_table();
        if (is_kept) place_.open(event == Event::array_start);
        return is_kept;
      }
      case Event::object_end:
      case Event::array_end:
        place_.close();
        return true;
      case Event::key:
        if (place_.in_table()) return false;
        place_.key(parsed.get_ref<const std::string&>());
        return true;
      case Event::value:
        // A member that is left out loses its value together with its key.
        return !place_.in_table() || !place_.table_is_array();
    }
    return true;
  }

 private:
  JsonPlace place_;
};

}  // namespace

nlohmann::json parse_json(const std::string& text,
                          const std::string& source_name,
                          const JsonLimits& limits) {
  if (text.size() > limits.max_size_bytes) {
    throw Error(fmt::format("{}: expected at most {} bytes of JSON, got {}",
                            source_name,
                            limits.max_size_bytes,
                            text.size()));
  }
  if (longest_token(text) > limits.max_token_bytes) {
    throw Error(fmt::format(
        "{}: a JSON text or number of more than {} bytes", source_name, limits.max_token_bytes));
  }
  try {
    Inspector inspector(source_name, limits);
    Json::sax_parse(text, &inspector);
    if (limits.tables.empty()) return Json::parse(text);
    TreeFilter filter(limits.tables);
    return Json::parse(text, [&](int, Json::parse_event_t event, const Json& parsed) {
      return filter(event, parsed);
    });
  } catch (const Json::exception& error) {
    throw Error(fmt::format("{}: not JSON: {}", source_name, error.what()));
  }
}

nlohmann::json parse_json(const std::string& text,
                          const std::string& source_name,
                          size_t max_size_bytes) {
  constexpr size_t kNone = std::numeric_limits<size_t>::max();
  return parse_json(text,
                    source_name,
                    {.max_size_bytes = max_size_bytes,
                     .max_tree_bytes = kNone,
                     .max_token_bytes = kNone,
                     .tables = {}});
}

}  // namespace dsmoe
