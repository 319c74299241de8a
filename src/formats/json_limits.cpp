#include "formats/json_limits.h"

#include <fmt/format.h>

#include <set>
#include <vector>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr int kMaxDepth = 64;

}  // namespace

nlohmann::json parse_json(const std::string& text,
                          const std::string& source_name,
                          size_t max_size_bytes) {
  if (text.size() > max_size_bytes) {
    throw Error(fmt::format(
        "{}: expected at most {} bytes of JSON, got {}", source_name, max_size_bytes, text.size()));
  }
  using Json = nlohmann::json;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) {
      throw Error(fmt::format("{}: JSON is deeper than {} levels", source_name, kMaxDepth));
    }
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key &&
        !keys.back().insert(parsed.get<std::string>()).second) {
      throw Error(
          fmt::format("{}: JSON key '{}' appears twice", source_name, parsed.get<std::string>()));
    }
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const Json::exception& error) {
    throw Error(fmt::format("{}: not JSON: {}", source_name, error.what()));
  }
}

}  // namespace dsmoe
