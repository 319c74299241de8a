#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace dsmoe {

/// What a command does once its line is read; returns the exit code.
using CommandRun = std::function<int()>;

/// A handle to one option or flag, for what else the line must keep to; its parts chain, as in
/// `command.option("--ranks", n_ranks, "processes").required().range(1, 8)`.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option required() const;
  Option range(int least, int most) const;  ///< both included
  Option range(int64_t least, int64_t most) const;
  Option range(double least, double most) const;
  Option needs(Option other) const;
  Option excludes(Option other) const;
  Option one_value_each() const;  ///< of a list: a mention brings one value, not all that follow
  Option path() const;            ///< a leading `~` means HOME; see expand_home

 private:
  CLI::Option* option_;
};

/// One subcommand. A name that starts with a dash is an option's, any other a place in the line;
/// values are set while the line is read and keep what they held where it does not name them. A
/// text is the argument byte for byte: brackets, braces, commas and an empty text mean nothing
/// else.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  Option option(std::string_view name, std::string& value, std::string_view help);
  Option option(std::string_view name, int& value, std::string_view help);
  Option option(std::string_view name, int64_t& value, std::string_view help);
  Option option(std::string_view name, uint64_t& value, std::string_view help);
  Option option(std::string_view name, double& value, std::string_view help);
  Option option(std::string_view name, std::optional<double>& value, std::string_view help);
  Option option(std::string_view name, std::vector<std::string>& values, std::string_view help);
  Option flag(std::string_view name, bool& value, std::string_view help);

  /// Takes what no option of the command matches, in order, instead of refusing it.
  void other_arguments(std::vector<std::string>& arguments);

  void on_run(CommandRun run) { run_ = std::move(run); }

 private:
  friend class CommandLine;

  CLI::App* app_;
  std::vector<std::string>* other_arguments_ = nullptr;
  CommandRun run_;
};

/// The program's command line, of which exactly one subcommand is to be named. Only its source
/// includes CLI11, which takes longer to compile than most commands.
class CommandLine {
 public:
  CommandLine(std::string_view description, std::string_view version);
  ~CommandLine();

  /// Stays valid as long as the command line.
  Command& subcommand(std::string_view name, std::string_view help);

  /// Reads the line and runs the command it names, or prints the help or version it asks for;
  /// returns the exit code. Throws Error for a line that does not fit.
  int run(int argc, char** argv);

 private:
  std::vector<std::string> arguments_of(int argc, char** argv) const;

  std::unique_ptr<CLI::App> app_;
  std::vector<std::unique_ptr<Command>> commands_;
};

}  // namespace dsmoe
