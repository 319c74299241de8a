#include "cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <type_traits>
#include <utility>

#include "cli/completion.h"
#include "cli/help_formatter.h"
#include "common/error.h"
#include "common/log.h"
#include "common/path_expansion.h"
#include "common/standard_output.h"
#include "common/suggestion.h"

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

// An argument that does not fit; the text follows the command's name.
class Refusal : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

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

// As people write it: `--max-tokens`, `CHECKPOINT`.
std::string shown_name(const CLI::Option& option) {
  if (option.get_positional()) return place_name(option);
  return option.get_lnames().empty() ? "-" + option.get_snames().front()
                                     : "--" + option.get_lnames().front();
}

template <typename Number>
CLI::Validator range_check(const CLI::Option* option, Number least, Number most) {
  const auto check = [=](std::string& text) {
    Number value{};
    if (read_number(text, value) && value >= least && value <= most) return std::string();
    throw Refusal(fmt::format(
        "expected {} to {} for {}, got '{}'", least, most, shown_name(*option), unmark(text)));
  };
  return CLI::Validator(check, "");
}

}  // namespace

Option Option::required() const {
  option_->required();
  return *this;
}

Option Option::type(std::string_view name) const {
  option_->type_name(std::string(name));
  return *this;
}

Option Option::default_text(std::string_view text) const {
  option_->default_str(std::string(text));
  return *this;
}

Option Option::choices(std::vector<std::string> words) const {
  option_->type_name(fmt::format("{}", fmt::join(words, "|")));
  const auto check = [option = option_, words = std::move(words)](const std::string& text) {
    const auto given = unmark(text);
    if (std::find(words.begin(), words.end(), given) != words.end()) return std::string();
    throw Refusal(fmt::format("expected {} for {}, got '{}'{}",
                              join_or(words),
                              shown_name(*option),
                              given,
                              did_you_mean(given, words)));
  };
  option_->check(check);
  return *this;
}

Option Option::range(int least, int most) const { return range(int64_t{least}, int64_t{most}); }

Option Option::range(int64_t least, int64_t most) const {
  option_->check(range_check(option_, least, most));
  return *this;
}

Option Option::range(double least, double most) const {
  option_->check(range_check(option_, least, most));
  return *this;
}

Option Option::path() const {
  const auto expand = [option = option_](const std::string& text) {
    return mark(expand_home(unmark(text), option->get_name()));
  };
  option_->type_name("PATH")->transform(expand);
  return *this;
}

Option Option::text_path() const {
  path();
  return type(kTextPath);
}

Option Option::needs(Option other) const {
  option_->needs(other.option_);
  return *this;
}

Option Option::excludes(Option other) const {
  option_->excludes(other.option_);
  return *this;
}

Option Option::one_value_each() const {
  option_->allow_extra_args(false);
  return *this;
}

namespace {

bool takes_value(const CLI::Option* option) {
  return option != nullptr && option->get_items_expected_max() > 0;
}

template <typename Value>
std::string text_of(const Value& value) {
  if constexpr (std::is_same_v<Value, std::string>) {
    return value;
  } else if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
    return fmt::format("{}", fmt::join(value, " "));
  } else if constexpr (std::is_same_v<Value, std::optional<double>>) {
    return value ? fmt::format("{}", *value) : "";
  } else {
    return fmt::format("{}", value);
  }
}

template <typename Value>
Option add(CLI::App* app,
           std::string_view name,
           Value& value,
           std::string_view help,
           std::string_view group,
           const char* type,
           const char* expected) {
  const auto self = std::make_shared<const CLI::Option*>(nullptr);
  const auto number = [self, expected](const std::string& text, auto& read) {
    if (read_number(text, read)) return;
    throw Refusal(
        fmt::format("expected {} for {}, got '{}'", expected, shown_name(**self), unmark(text)));
  };
  const CLI::callback_t read = [&value, number](const CLI::results_t& texts) {
    if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
      value.clear();
      for (const auto& text : texts) value.push_back(unmark(text));
    } else if constexpr (std::is_same_v<Value, std::string>) {
      value = unmark(texts.back());
    } else if constexpr (std::is_same_v<Value, std::optional<double>>) {
      number(texts.back(), value.emplace());
    } else {
      number(texts.back(), value);
    }
    return true;
  };
  auto* option = app->add_option(std::string(name), read, std::string(help));
  *self = option;
  option->type_name(type)->default_str(text_of(value))->group(std::string(group));
  if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
    option->expected(CLI::detail::expected_max_vector_size);
  }
  return Option(option);
}

constexpr const char* kWholeNumber = "a whole number";
constexpr const char* kNumber = "a number";

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const auto* option : command.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// The option that an argument names: exactly, or with underscores for dashes.
CLI::Option* find_option(CLI::App* command, std::string& name) {
  if (auto* option = command->get_option_no_throw(name)) return option;
  auto dashed = name;
  std::replace(dashed.begin(), dashed.end(), '_', '-');
  auto* option = name.starts_with("--") ? command->get_option_no_throw(dashed) : nullptr;
  if (option != nullptr) name = dashed;
  return option;
}

void check_flag_value(const std::string& name, const std::string& value) {
  static const std::vector<std::string> kWords = {"true", "false"};
  if (std::find(kWords.begin(), kWords.end(), value) != kWords.end()) return;
  throw Refusal(fmt::format("expected {} without a value, got '{}={}'", name, name, value));
}

}  // namespace

Option Command::option(std::string_view name, std::string& value, std::string_view help) {
  return add(app_, name, value, help, group_, "TEXT", "a text");
}

Option Command::option(std::string_view name, int& value, std::string_view help) {
  return add(app_, name, value, help, group_, "N", kWholeNumber);
}

Option Command::option(std::string_view name, int64_t& value, std::string_view help) {
  return add(app_, name, value, help, group_, "N", kWholeNumber);
}

Option Command::option(std::string_view name, uint64_t& value, std::string_view help) {
  return add(app_, name, value, help, group_, "N", "a whole number of 0 or more");
}

Option Command::option(std::string_view name, double& value, std::string_view help) {
  return add(app_, name, value, help, group_, "X", kNumber);
}

Option Command::option(std::string_view name, std::optional<double>& value, std::string_view help) {
  return add(app_, name, value, help, group_, "X", kNumber);
}

Option Command::option(std::string_view name,
                       std::vector<std::string>& values,
                       std::string_view help) {
  return add(app_, name, values, help, group_, "TEXT", "a text");
}

Option Command::flag(std::string_view name, bool& value, std::string_view help) {
  auto* flag = app_->add_flag(std::string(name), value, std::string(help));
  return Option(flag->group(group_));
}

void Command::other_arguments(std::vector<std::string>& arguments) {
  app_->allow_extras();
  other_arguments_ = &arguments;
}

// The arguments behind the command's name, as CLI11 reads them right.
std::vector<std::string> Command::marked(const std::vector<std::string>& given) const {
  std::vector<std::string> marked;
  for (auto text = given.begin(); text != given.end(); ++text) {
    if (!text->starts_with('-') || text->size() == 1) {
      marked.push_back(mark(*text));
      continue;
    }
    if (*text == "--") {
      marked.push_back(*text);
      std::transform(text + 1, given.end(), std::back_inserter(marked), mark);
      break;
    }
    const size_t equals = text->find('=');
    auto name = text->substr(0, equals);
    if (name == "-h" || name == "--help") throw CLI::CallForHelp();
    std::optional<std::string> value;
    if (equals != text->npos) value = text->substr(equals + 1);
    const auto* option = find_option(app_, name);
    if (option == nullptr && !text->starts_with("--") && text->size() > 2) {  // as -n5
      auto letter = text->substr(0, 2);
      if (takes_value(find_option(app_, letter))) {
        marked.insert(marked.end(), {letter, mark(text->substr(2))});
        continue;
      }
    }
    if (option == nullptr) {
      refuse_unknown(*text, name);
      marked.push_back(*text);
    } else if (takes_value(option)) {
      if (!value && ++text == given.end()) {
        throw Refusal(fmt::format("expected a value after {}, got none", name));
      }
      marked.insert(marked.end(), {name, mark(value.value_or(*text))});
    } else {
      if (value) check_flag_value(name, *value);
      marked.push_back(value ? name + "=" + *value : name);
    }
  }
  return marked;
}

// An override of a config key is the command's to judge.
void Command::refuse_unknown(const std::string& text, const std::string& name) const {
  const bool may_be_key = text.find('=') != text.npos || name.find('.') != name.npos;
  if (other_arguments_ != nullptr && may_be_key) return;
  const auto hint = did_you_mean(name, option_names(*app_));
  if (other_arguments_ != nullptr && hint.empty()) return;
  throw Refusal(fmt::format(
      "expected an option, got '{}'{}{}", text, hint, hint.empty() ? unknown_hint_ : ""));
}

// What CLI11 found wrong, in the order of words that this program has.
std::string Command::refusal_of(const CLI::ParseError& error) const {
  std::vector<std::string> missing;
  for (const auto* option : app_->get_options()) {
    const auto name = shown_name(*option);
    if (option->get_required() && option->count() == 0) missing.push_back(name);
    if (option->count() == 0) continue;
    for (const auto* other : option->get_needs()) {
      if (other->count() > 0) continue;
      return fmt::format("expected {} with {}, got {} alone", shown_name(*other), name, name);
    }
    for (const auto* other : option->get_excludes()) {
      if (other->count() == 0) continue;
      return fmt::format("expected {} or {}, got both", name, shown_name(*other));
    }
    const bool is_repeated = option->get_items_expected_max() == 1 && option->count() > 1;
    if (is_repeated) return fmt::format("expected {} once, got it {} times", name, option->count());
  }
  if (!missing.empty()) {
    return fmt::format("expected {}, got {}",
                       fmt::join(missing, " and "),
                       missing.size() == 1 ? "none" : "neither");
  }
  const auto others = app_->remaining();
  if (!others.empty()) {
    return fmt::format(
        "expected no further argument, got '{}'{}", unmark(others[0]), unknown_hint_);
  }
  std::string text = error.what();
  std::erase(text, kMark);
  return text;
}

void Command::check_standard_input() const {
  size_t n_uses = 0;
  for (const auto* option : app_->get_options()) {
    if (option->get_type_name() != kTextPath) continue;
    const auto& texts = option->results();
    n_uses += static_cast<size_t>(std::count(texts.begin(), texts.end(), "-"));
  }
  if (n_uses <= 1) return;
  throw Refusal(
      fmt::format("expected '-' once, as standard input is read once, got it {} times", n_uses));
}

CommandLine::CommandLine(std::string_view description, std::string_view version)
    : app_(std::make_unique<CLI::App>(std::string(description))), version_(version) {
  app_->formatter(std::make_shared<HelpFormatter>(help_width()));
  app_->set_help_flag("");
}

CommandLine::~CommandLine() = default;

void CommandLine::examples(std::string_view text) { app_->footer(std::string(text)); }

Command& CommandLine::subcommand(std::string_view name, std::string_view help) {
  auto* app = app_->add_subcommand(std::string(name), std::string(help));
  app->set_help_flag("-h,--help", "print this help");
  app->group(group_);
  return *commands_.emplace_back(std::make_unique<Command>(app));
}

std::vector<std::string> CommandLine::command_names() const {
  std::vector<std::string> names;
  for (const auto& command : commands_) names.push_back(command->app_->get_name());
  return names;
}

Command& CommandLine::find(const std::string& name) const {
  for (const auto& command : commands_) {
    if (command->app_->get_name() == name) return *command;
  }
  const auto hint = did_you_mean(name, command_names());
  throw Error(fmt::format(
      "expected a command, got '{}'{} see 'dsmoe --help'", name, hint.empty() ? ";" : hint));
}

std::string CommandLine::help(const std::string& command) const {
  return command.empty() ? app_->help() : find(command).app_->help();
}

std::string CommandLine::completion(const std::string& shell) const {
  return shell == "zsh" ? zsh_completion(*app_) : bash_completion(*app_);
}

int CommandLine::run(int argc, char** argv) {
  const std::vector<std::string> given(argv + 1, argv + argc);
  if (given.empty()) {
    print_note(help(""));
    throw Error("expected a command, got none; see 'dsmoe --help'");
  }
  const auto& first = given.front();
  if (first == "--version" || first == "-V") {
    print_out("{}\n", version_);
    return 0;
  }
  if (first == "--help" || first == "-h") {
    print_out("{}", help(""));
    return 0;
  }
  auto& command = find(first);
  if (!command.read({given.begin() + 1, given.end()})) {
    print_out("{}", help(first));
    return 0;
  }
  return command.run_();
}

// Returns false where the line asks for help.
bool Command::read(const std::vector<std::string>& given) {
  try {
    auto arguments = marked(given);
    std::reverse(arguments.begin(), arguments.end());  // the order that CLI11 expects
    app_->parse(arguments);
    check_standard_input();
  } catch (const CLI::CallForHelp&) {
    return false;
  } catch (const CLI::ParseError& error) {
    refuse(refusal_of(error));
  } catch (const Refusal& refusal) {
    refuse(refusal.what());
  }
  if (other_arguments_ != nullptr) {
    other_arguments_->clear();
    for (const auto& text : app_->remaining()) other_arguments_->push_back(unmark(text));
  }
  return true;
}

void Command::refuse(const std::string& reason) const {
  const auto& name = app_->get_name();
  const char* join = reason.ends_with('?') ? "" : ";";
  throw Error(fmt::format("{}: {}{} see 'dsmoe {} --help'", name, reason, join, name));
}

}  // namespace dsmoe
