#include "common/config_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/suggestion.h"

namespace dsmoe {
namespace {

// A name that needs more edits than this is another word.
size_t most_edits(const std::string& name) { return std::max<size_t>(name.size() / 3, 2); }

// Names are compared by their last part, then by the whole.
class Nearest {
 public:
  explicit Nearest(const std::string& path) : path_(path), name_(plain_name(last_part(path))) {}

  void add(const std::string& candidate, const std::string& meaning) {
    const std::tuple score{typing_distance(name_, plain_name(last_part(candidate))),
                           typing_distance(path_, candidate)};
    if (best_.empty() || score < score_) {
      score_ = score;
      best_ = meaning;
    }
  }
  std::string best() const { return std::get<0>(score_) <= most_edits(name_) ? best_ : ""; }

 private:
  std::string path_;
  std::string name_;
  std::string best_;
  std::tuple<size_t, size_t> score_{};
};

}  // namespace

std::string plain_name(std::string_view name) {
  std::string plain(name);
  for (char& c : plain) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '-') c = '_';
  }
  return plain;
}

std::string last_part(const std::string& path) { return path.substr(path.rfind('.') + 1); }

std::string join_path(const std::string& section, const std::string& name) {
  return section.empty() ? name : section + "." + name;
}

std::string suggest_key(const std::string& path,
                        const std::set<std::string>& keys,
                        const std::set<std::string>& sections,
                        std::span<const KeyAlias> aliases) {
  std::vector<std::string> namesakes;
  Nearest nearest(path);
  for (const auto* names : {&keys, &sections}) {
    for (const auto& name : *names) {
      if (last_part(name) == plain_name(last_part(path))) namesakes.push_back(name);
      nearest.add(name, name);
    }
  }
  if (namesakes.size() > 1) {
    return fmt::format("that name has {}", fmt::join(namesakes, ", "));
  }
  if (!namesakes.empty()) return "the nearest is " + namesakes.front();
  for (const auto& alias : aliases) {
    if (alias.key.empty()) continue;
    nearest.add(std::string(alias.name), fmt::format("{} ({})", alias.key, alias.name));
  }
  if (!nearest.best().empty()) return "the nearest is " + nearest.best();
  return "no key has a name like it";
}

}  // namespace dsmoe
