#include "cli/help_formatter.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>

namespace dsmoe {
namespace {

constexpr size_t kPipeWidth = 100;
constexpr size_t kLeastWidth = 40;
constexpr size_t kGreatestWidth = 120;
constexpr size_t kNameColumn = 28;        // of options, where lines are wide enough
constexpr size_t kLeastTextColumns = 36;  // else texts go below their names
constexpr size_t kCommandColumn = 14;

size_t terminal_width() {
  if (const char* text = std::getenv("COLUMNS")) {
    size_t columns = 0;
    const std::string_view given(text);
    const auto read = std::from_chars(given.begin(), given.end(), columns);
    if (read.ec == std::errc{} && read.ptr == given.end() && columns > 0) return columns;
  }
  winsize size = {};
  if (isatty(STDOUT_FILENO) != 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 &&
      size.ws_col > 0) {
    return size.ws_col;
  }
  return kPipeWidth;
}

// Words of text in lines of at most `width - indent` columns, each but the first indented.
std::string wrapped(const std::string& text, size_t indent, size_t width) {
  std::string lines;
  size_t column = indent;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find_first_of(" \n", begin), text.size());
    const size_t length = end - begin;
    if (length > 0) {
      if (column > indent && column + 1 + length > width) {
        lines += '\n' + std::string(indent, ' ');
        column = indent;
      } else if (column > indent) {
        lines += ' ';
        ++column;
      }
      lines.append(text, begin, length);
      column += length;
    }
    begin = end + 1;
  }
  return lines;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return static_cast<char>(std::toupper(c));
  });
  return text;
}

bool is_list(const CLI::Option& option) {
  return option.get_expected_max() >= CLI::detail::expected_max_vector_size;
}

// `-p, --prompt TEXT`, `--json`, `CHECKPOINT`.
std::string name_of(const CLI::Option& option) {
  if (option.get_positional()) return place_name(option) + (is_list(option) ? "..." : "");
  std::string name;
  for (const auto& one : option.get_snames()) name += "-" + one + ", ";
  const auto& longs = option.get_lnames();
  if (longs.empty()) name.resize(name.size() - 2);
  if (!longs.empty()) name += "--" + longs.front();
  if (option.get_items_expected_max() > 0) {
    name += " " + option.get_type_name() + (is_list(option) ? "..." : "");
  }
  return name;
}

// What follows an option's text in parentheses: whether it is required, its default, the options that it needs.
std::string conditions_of(const CLI::Option& option) {
  std::vector<std::string> parts;
  if (option.get_items_expected_max() > 0) {
    if (option.get_required()) {
      if (option.nonpositional()) parts.emplace_back("required");
    } else if (option.get_default_str().empty()) {
      parts.emplace_back("default: none");
    } else {
      const auto& text = option.get_default_str();
      parts.push_back("default" + std::string(text.find(' ') == text.npos ? " " : ": ") + text);
    }
  }
  return parts.empty() ? "" : fmt::format(" ({})", fmt::join(parts, "; "));
}

}  // namespace

std::string place_name(const CLI::Option& option) { return upper(option.get_name(true)); }

size_t help_width() { return std::clamp(terminal_width(), kLeastWidth, kGreatestWidth); }

CommandText split_description(const std::string& description) {
  CommandText text;
  const size_t at = std::min(description.find("\nExample: "), description.size());
  text.description = description.substr(0, at);
  std::replace(text.description.begin(), text.description.end(), '\n', ' ');
  const size_t stop = text.description.find(". ");
  text.summary = text.description.substr(0, stop == std::string::npos ? stop : stop + 1);
  for (size_t begin = at; begin < description.size();) {
    begin = description.find("dsmoe ", begin);
    if (begin == std::string::npos) break;
    const size_t end = std::min(description.find('\n', begin), description.size());
    text.examples.push_back(description.substr(begin, end - begin));
    begin = end;
  }
  return text;
}

std::string HelpFormatter::make_help(const CLI::App* app, std::string, CLI::AppFormatMode) const {
  return app->get_name().empty() ? overview(*app) : page(*app);
}

std::string HelpFormatter::row(const std::string& name, const std::string& text) const {
  const bool is_below = width_ < kNameColumn + kLeastTextColumns;
  const size_t indent = is_below ? 6 : kNameColumn;
  std::string line = "  " + name;
  if (is_below || line.size() + 2 > indent) {
    line += '\n' + std::string(indent, ' ');
  } else {
    line.resize(indent, ' ');
  }
  return line + wrapped(text, indent, width_) + '\n';
}

std::string HelpFormatter::option_rows(const std::string& title,
                                       const std::vector<const CLI::Option*>& options) const {
  if (options.empty()) return "";
  std::string rows = fmt::format("\n{}:\n", title);
  for (const auto* option : options) {
    rows += row(name_of(*option), option->get_description() + conditions_of(*option));
  }
  return rows;
}

std::string HelpFormatter::overview(const CLI::App& app) const {
  std::string text = wrapped(app.get_description(), 0, width_) +
                     "\n\nUsage: dsmoe COMMAND [options]\n       dsmoe help COMMAND\n";
  std::string group;
  for (const auto* command : app.get_subcommands({})) {
    if (command->get_group() != group) text += fmt::format("\n{}:\n", command->get_group());
    group = command->get_group();
    const auto name = fmt::format("  {:<{}}", command->get_name(), kCommandColumn - 2);
    const auto summary = split_description(command->get_description()).summary;
    text += name + wrapped(summary, kCommandColumn, width_) + "\n";
  }
  return text + "\n" + app.get_footer() + "\n";
}

std::string HelpFormatter::page(const CLI::App& app) const {
  const auto text = split_description(app.get_description());
  std::string page = wrapped(text.description, 0, width_) + "\n\n";
  std::string usage = fmt::format("Usage: dsmoe {} [options]", app.get_name());
  const auto places = app.get_options([](const auto* option) { return option->get_positional(); });
  for (const auto* place : places) {
    const auto name = name_of(*place);
    usage += place->get_required() ? " " + name : " [" + name + "]";
  }
  page += wrapped(usage, 0, width_) + "\n";
  page += option_rows("Arguments", places);
  for (const auto& group : app.get_groups()) {
    page += option_rows(group, app.get_options([&](const CLI::Option* option) {
      return option->nonpositional() && option->get_group() == group &&
             option != app.get_help_ptr();
    }));
  }
  const auto& examples = text.examples;
  if (examples.size() == 1) page += fmt::format("\nExample: {}\n", examples.front());
  if (examples.size() > 1) page += fmt::format("\nExamples:\n  {}\n", fmt::join(examples, "\n  "));
  return page;
}

}  // namespace dsmoe
