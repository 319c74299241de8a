#include "cli/completion.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "cli/help_formatter.h"

namespace dsmoe {
namespace {

std::vector<std::string> names_of(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const auto& name : option.get_snames()) names.push_back("-" + name);
  for (const auto& name : option.get_lnames()) names.push_back("--" + name);
  return names;
}

bool has_value(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

// The words of a choice as `a|b|c`, or an empty text.
std::string words_of(const CLI::Option& option) {
  const auto type = option.get_type_name();
  return has_value(option) && type.find('|') != type.npos && type != kTextPath ? type : "";
}

std::string replaced(std::string text, char from, const std::string& to) {
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size())) {
    text.replace(at, 1, to);
  }
  return text;
}

// In single quotes of a shell.
std::string in_quotes(const std::string& text) { return "'" + replaced(text, '\'', "'\\''") + "'"; }

}  // namespace

std::string bash_completion(const CLI::App& app) {
  std::string names;
  std::string options;
  std::string values;
  for (const auto* command : app.get_subcommands({})) {
    const auto& name = command->get_name();
    names += (names.empty() ? "" : " ") + name;
    std::vector<std::string> all;
    for (const auto* option : command->get_options()) {
      for (const auto& one : names_of(*option)) {
        all.push_back(one);
        if (!has_value(*option)) continue;
        const auto words = replaced(words_of(*option), '|', " ");
        values +=
            fmt::format("    '{} {}') values={}; is_value=1 ;;\n", name, one, in_quotes(words));
      }
    }
    options += fmt::format(
        "    {}) options={} ;;\n", name, in_quotes(fmt::format("{}", fmt::join(all, " "))));
  }
  return fmt::format(
      "# Completion of dsmoe for bash. Use: source <(dsmoe completion bash)\n"
      "_dsmoe() {{\n"
      "  local word=${{COMP_WORDS[COMP_CWORD]}} options= values= is_value=\n"
      "  local commands='{}'\n"
      "  COMPREPLY=()\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ] || [ \"${{COMP_WORDS[1]}}\" = help ]; then\n"
      "    [ \"$COMP_CWORD\" -gt 2 ] || COMPREPLY=($(compgen -W \"$commands\" -- \"$word\"))\n"
      "    return\n"
      "  fi\n"
      "  case \"${{COMP_WORDS[1]}}\" in\n{}  esac\n"
      "  case \"${{COMP_WORDS[1]}} ${{COMP_WORDS[COMP_CWORD-1]}}\" in\n{}  esac\n"
      "  if [ -n \"$values\" ]; then\n"
      "    COMPREPLY=($(compgen -W \"$values\" -- \"$word\"))\n"
      "  elif [ -z \"$is_value\" ] && [[ $word == -* ]]; then\n"
      "    COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
      "  else\n"
      "    compopt -o filenames 2> /dev/null\n"
      "    local IFS=$'\\n'\n"
      "    COMPREPLY=($(compgen -f -- \"$word\"))\n"
      "  fi\n"
      "}}\n"
      "complete -F _dsmoe dsmoe\n",
      names,
      options,
      values);
}

std::string zsh_completion(const CLI::App& app) {
  std::string commands;
  std::string cases;
  // Brackets and colons end a description.
  const auto shown = [](std::string text) {
    for (const char c : {'[', ']', ':'}) text = replaced(text, c, std::string("\\") + c);
    return text;
  };
  for (const auto* command : app.get_subcommands({})) {
    const auto& name = command->get_name();
    const auto summary = split_description(command->get_description()).summary;
    commands += "    " + in_quotes(name + ":" + shown(summary)) + "\n";
    std::string options;
    for (const auto* option : command->get_options()) {
      for (const auto& one : names_of(*option)) {
        std::string spec = "*" + one + "[" + shown(option->get_description()) + "]";
        if (has_value(*option)) {
          const auto words = replaced(words_of(*option), '|', " ");
          spec += ":" + shown(option->get_type_name()) + ":";
          spec += words.empty() ? "_files" : "(" + words + ")";
        }
        options += " \\\n        " + in_quotes(spec);
      }
    }
    cases += fmt::format("    {}) _arguments{} '*:file:_files' ;;\n", name, options);
  }
  return fmt::format(
      "#compdef dsmoe\n"
      "# Completion of dsmoe for zsh. Use: source <(dsmoe completion zsh), after compinit\n"
      "_dsmoe() {{\n"
      "  local -a commands=(\n{}  )\n"
      "  if (( CURRENT == 2 )) || [[ $words[2] == help ]]; then\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  local command=$words[2]\n"
      "  shift words\n"
      "  (( CURRENT-- ))\n"
      "  case $command in\n{}  esac\n"
      "}}\n"
      "compdef _dsmoe dsmoe\n",
      commands,
      cases);
}

}  // namespace dsmoe
