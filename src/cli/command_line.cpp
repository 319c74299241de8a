#include "cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <sstream>
#include <type_traits>
#include <utility>

#include "common/error.h"
#include "common/path_expansion.h"
#include "common/standard_output.h"

namespace dsmoe {

namespace {

// CLI11 2.1 reads more into arguments than they hold: `[a,b]` of a list is two values, `++` ends a
// subcommand, `--name=` takes the argument that follows. The arguments it would misread begin with
// this mark while it parses them; a text that begins with the mark gets another one.
constexpr char kMark = '\x1F';

std::string mark(const std::string& text) {
  const bool is_misread = text.starts_with('[') || text.starts_with(kMark) || text == "++";
  return is_misread ? kMark + text : text;
}

std::string unmark(const std::string& text) {
  return text.starts_with(kMark) ? text.substr(1) : text;
}

// Messages of CLI11 hold arguments anywhere.
std::string without_marks(std::string message) {
  std::erase(message, kMark);
  return message;
}

// Not CLI11's conversions, which read 010 as 8 and true as 1.
template <typename Number>
bool read_number(const std::string& text, Number& value) {
  const char* begin = text.data();
  const char* end = begin + text.size();
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') ++begin;
  std::from_chars_result read{};
  if constexpr (std::is_integral_v<Number>) {
    const bool is_hexadecimal = end - begin > 2 && begin[0] == '0' && (begin[1] | 0x20) == 'x';
    read = is_hexadecimal ? std::from_chars(begin + 2, end, value, 16)
                          : std::from_chars(begin, end, value);
  } else {
    read = std::from_chars(begin, end, value);
    if (!std::isfinite(value)) return false;
  }
  return read.ec == std::errc{} && read.ptr == end;
}

template <typename Number>
CLI::Validator range_check(Number least, Number most, const char* type) {
  const auto check = [least, most](std::string& text) {
    Number value{};
    if (read_number(text, value) && value >= least && value <= most) return std::string();
    return fmt::format(
        "Value {} not in range {} to {}", text, std::to_string(least), std::to_string(most));
  };
  return CLI::Validator(check, fmt::format("{} in [{} - {}]", type, least, most));
}

}  // namespace

Option Option::required() const { return Option(option_->required()); }

Option Option::range(int least, int most) const { return range(int64_t{least}, int64_t{most}); }

Option Option::range(int64_t least, int64_t most) const {
  return Option(option_->check(range_check(least, most, "INT")));
}

Option Option::range(double least, double most) const {
  return Option(option_->check(range_check(least, most, "FLOAT")));
}

Option Option::path() const {
  const auto expand = [option = option_](const std::string& text) {
    return mark(expand_home(unmark(text), option->get_name()));
  };
  return Option(option_->transform(expand));
}

Option Option::needs(Option other) const { return Option(option_->needs(other.option_)); }

Option Option::excludes(Option other) const { return Option(option_->excludes(other.option_)); }

Option Option::one_value_each() const { return Option(option_->allow_extra_args(false)); }

namespace {

template <typename Value>
Option add(CLI::App* app,
           std::string_view name,
           Value& value,
           std::string_view help,
           const char* type) {
  const CLI::callback_t read = [&value](const CLI::results_t& texts) {
    if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
      value.clear();
      for (const auto& text : texts) value.push_back(unmark(text));
    } else if constexpr (std::is_same_v<Value, std::string>) {
      value = unmark(texts.back());
    } else if constexpr (std::is_same_v<Value, std::optional<double>>) {
      return read_number(texts.back(), value.emplace());
    } else {
      return read_number(texts.back(), value);
    }
    return true;
  };
  auto* option = app->add_option(std::string(name), read, std::string(help));
  option->type_name(type);
  if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
    option->expected(CLI::detail::expected_max_vector_size);
  }
  return Option(option);
}

bool takes_value(const CLI::Option* option) {
  return option != nullptr && option->get_items_expected_max() > 0;
}

// The arguments of a subcommand, behind its name, as CLI11 reads them right.
std::vector<std::string> mark_arguments(CLI::App* command, const std::vector<std::string>& given) {
  std::vector<std::string> marked;
  bool is_value = false;  // of the option before
  for (auto text = given.begin(); text != given.end(); ++text) {
    const bool is_option = !std::exchange(is_value, false) && text->starts_with('-');
    if (is_option && *text == "--") {
      marked.push_back(*text);
      std::transform(text + 1, given.end(), std::back_inserter(marked), mark);
      break;
    }
    const size_t equals = text->find('=');
    const auto name = text->substr(0, equals);
    if (!is_option || !takes_value(command->get_option_no_throw(name))) {
      marked.push_back(is_option ? *text : mark(*text));
    } else if (equals == text->npos) {
      marked.push_back(*text);
      is_value = true;
    } else if (equals + 1 == text->size()) {
      marked.insert(marked.end(), {name, ""});
    } else {
      marked.push_back(name + "=" + mark(text->substr(equals + 1)));
    }
  }
  return marked;
}

}  // namespace

Option Command::option(std::string_view name, std::string& value, std::string_view help) {
  return add(app_, name, value, help, "TEXT");
}

Option Command::option(std::string_view name, int& value, std::string_view help) {
  return add(app_, name, value, help, "INT");
}

Option Command::option(std::string_view name, int64_t& value, std::string_view help) {
  return add(app_, name, value, help, "INT");
}

Option Command::option(std::string_view name, uint64_t& value, std::string_view help) {
  return add(app_, name, value, help, "UINT");
}

Option Command::option(std::string_view name, double& value, std::string_view help) {
  return add(app_, name, value, help, "FLOAT");
}

Option Command::option(std::string_view name, std::optional<double>& value, std::string_view help) {
  return add(app_, name, value, help, "FLOAT");
}

Option Command::option(std::string_view name,
                       std::vector<std::string>& values,
                       std::string_view help) {
  return add(app_, name, values, help, "TEXT");
}

Option Command::flag(std::string_view name, bool& value, std::string_view help) {
  return Option(app_->add_flag(std::string(name), value, std::string(help)));
}

void Command::other_arguments(std::vector<std::string>& arguments) {
  app_->allow_extras();
  other_arguments_ = &arguments;
}

CommandLine::CommandLine(std::string_view description, std::string_view version)
    : app_(std::make_unique<CLI::App>(std::string(description))) {
  app_->require_subcommand(1);
  app_->set_version_flag("--version", std::string(version));
}

CommandLine::~CommandLine() = default;

Command& CommandLine::subcommand(std::string_view name, std::string_view help) {
  auto* app = app_->add_subcommand(std::string(name), std::string(help));
  return *commands_.emplace_back(std::make_unique<Command>(app));
}

// In reverse, as CLI11 wants them.
std::vector<std::string> CommandLine::arguments_of(int argc, char** argv) const {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto named = std::find_if(commands_.begin(), commands_.end(), [&](const auto& command) {
    return !arguments.empty() && command->app_->get_name() == arguments.front();
  });
  if (named != commands_.end()) {
    auto marked = mark_arguments((*named)->app_, {arguments.begin() + 1, arguments.end()});
    arguments.resize(1);
    arguments.insert(arguments.end(), marked.begin(), marked.end());
  }
  std::reverse(arguments.begin(), arguments.end());
  return arguments;
}

int CommandLine::run(int argc, char** argv) {
  try {
    app_->name(argv[0]);
    app_->parse(arguments_of(argc, argv));
  } catch (const CLI::Success& help_or_version) {
    std::ostringstream text;
    const int code = app_->exit(help_or_version, text, text);
    standard_output().write(text.str());
    return code;
  } catch (const CLI::ParseError& error) {
    throw Error(fmt::format("{}; see --help", without_marks(error.what())));
  }
  const auto named = std::find_if(commands_.begin(), commands_.end(), [](const auto& command) {
    return command->app_->parsed();
  });
  auto& command = **named;
  if (command.other_arguments_ != nullptr) {
    command.other_arguments_->clear();
    for (const auto& text : command.app_->remaining()) {
      command.other_arguments_->push_back(unmark(text));
    }
  }
  return command.run_();
}

}  // namespace dsmoe
