#include "common/path_expansion.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string_view>

#include "common/error.h"

namespace dsmoe {
namespace {

bool begins_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool continues_name(char c) { return begins_name(c) || (c >= '0' && c <= '9'); }

// An empty variable would turn `$SCRATCH/run` into `/run`.
std::string value_of(const std::string& name, const std::string& path, const std::string& who) {
  const char* value = std::getenv(name.c_str());
  if (value != nullptr && *value != '\0') return value;
  throw Error(
      fmt::format("{}: expected the environment variable {} of '{}' to have a value, got none; set "
                  "it or write the path in full",
                  who,
                  name,
                  path));
}

bool is_home(std::string_view path) { return path == "~" || path.starts_with("~/"); }

[[noreturn]] void refuse_user(const std::string& path, const std::string& who) {
  throw Error(
      fmt::format("{}: expected ~ or ~/ for the home directory, got '{}'; write the path in full, "
                  "or ./{} for a name that begins with ~",
                  who,
                  path,
                  path));
}

// The value of the variable that `path` names at `at`, behind its `$`; moves `at` behind the name.
std::string take_variable(const std::string& path, size_t& at, const std::string& who) {
  const bool is_braced = path[at] == '{';
  const size_t begin = at + (is_braced ? 1 : 0);
  size_t end = begin;
  while (end < path.size() && continues_name(path[end])) ++end;
  const bool is_name = end > begin && begins_name(path[begin]);
  if (is_braced && (!is_name || end == path.size() || path[end] != '}')) {
    throw Error(fmt::format("{}: expected ${{NAME}}, got '{}'; write $$ for a $", who, path));
  }
  at = end + (is_braced ? 1 : 0);
  return value_of(path.substr(begin, end - begin), path, who);
}

}  // namespace

std::string expand_path(const std::string& path, const std::string& who) {
  std::string expanded;
  size_t at = 0;
  if (is_home(path)) {
    expanded = value_of("HOME", path, who);
    at = 1;
  } else if (path.starts_with('~')) {
    refuse_user(path, who);
  }
  while (at < path.size()) {
    const char c = path[at++];
    const char next = at < path.size() ? path[at] : '\0';
    if (c == '$' && (begins_name(next) || next == '{')) {
      expanded += take_variable(path, at, who);
    } else {
      expanded += c;
      if (c == '$' && next == '$') ++at;
    }
  }
  return expanded;
}

std::string quote_path(const std::string& path) {
  std::string quoted = path.starts_with('~') ? "./" : "";
  for (const char c : path) quoted += c == '$' ? "$$" : std::string(1, c);
  return quoted;
}

std::string expand_home(const std::string& path, const std::string& who) {
  if (is_home(path)) return value_of("HOME", path, who) + path.substr(1);
  if (path.starts_with('~') && path.find('/') != path.npos) refuse_user(path, who);
  return path;
}

}  // namespace dsmoe
