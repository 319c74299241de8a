#pragma once

#include <set>
#include <string>
#include <string_view>

#include "common/config_reader.h"

namespace dsmoe {

/// Lower case with `_` for `-`: the form in which names are compared.
std::string plain_name(std::string_view name);

/// `steps` of `train.steps`.
std::string last_part(const std::string& path);

/// `train.steps` of `train` and `steps`.
std::string join_path(const std::string& section, const std::string& name);

/// The part of an error after `unknown key; `: the keys of that name in other sections, or the key
/// or section with the nearest name anywhere, aliases among them.
std::string suggest_key(const std::string& path,
                        const std::set<std::string>& keys,
                        const std::set<std::string>& sections,
                        std::span<const KeyAlias> aliases);

}  // namespace dsmoe
