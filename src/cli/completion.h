#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace dsmoe {

/// Scripts that complete commands, options, words of a choice and file names.
std::string bash_completion(const CLI::App& app);
std::string zsh_completion(const CLI::App& app);

}  // namespace dsmoe
