#include "cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <sstream>

#include "common/error.h"
#include "common/standard_output.h"

namespace dsmoe {

Option Option::required() const { return Option(option_->required()); }

Option Option::range(int least, int most) const { return range(int64_t{least}, int64_t{most}); }

Option Option::range(int64_t least, int64_t most) const {
  return Option(option_->check(CLI::Range(least, most)));
}

Option Option::range(double least, double most) const {
  return Option(option_->check(CLI::Range(least, most)));
}

Option Option::needs(Option other) const { return Option(option_->needs(other.option_)); }

Option Option::excludes(Option other) const { return Option(option_->excludes(other.option_)); }

Option Option::one_value_each() const { return Option(option_->allow_extra_args(false)); }

namespace {

template <typename Value>
Option add(CLI::App* app, std::string_view name, Value& value, std::string_view help) {
  return Option(app->add_option(std::string(name), value, std::string(help)));
}

}  // namespace

Option Command::option(std::string_view name, std::string& value, std::string_view help) {
  return add(app_, name, value, help);
}

Option Command::option(std::string_view name, int& value, std::string_view help) {
  return add(app_, name, value, help);
}

Option Command::option(std::string_view name, int64_t& value, std::string_view help) {
  return add(app_, name, value, help);
}

Option Command::option(std::string_view name, uint64_t& value, std::string_view help) {
  return add(app_, name, value, help);
}

Option Command::option(std::string_view name, double& value, std::string_view help) {
  return add(app_, name, value, help);
}

Option Command::option(std::string_view name,
                       std::vector<std::string>& values,
                       std::string_view help) {
  return add(app_, name, values, help);
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

int CommandLine::run(int argc, char** argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::Success& help_or_version) {
    std::ostringstream text;
    const int code = app_->exit(help_or_version, text, text);
    standard_output().write(text.str());
    return code;
  } catch (const CLI::ParseError& error) {
    throw Error(fmt::format("{}; see --help", error.what()));
  }
  const auto named = std::find_if(commands_.begin(), commands_.end(), [](const auto& command) {
    return command->app_->parsed();
  });
  auto& command = **named;
  if (command.other_arguments_ != nullptr) *command.other_arguments_ = command.app_->remaining();
  return command.run_();
}

}  // namespace dsmoe
