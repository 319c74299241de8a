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
class ParseError;
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
  Option type(std::string_view name) const;  ///< in the help: N, X, TEXT, PATH, POLICY
  /// In the help, in place of the value that the option's variable holds: `the context`.
  Option default_text(std::string_view text) const;
  /// One of these words.
  Option choices(std::vector<std::string> words) const;
  Option range(int least, int most) const;  ///< both included
  Option range(int64_t least, int64_t most) const;
  Option range(double least, double most) const;
  Option needs(Option other) const;
  Option excludes(Option other) const;
  Option one_value_each() const;  ///< of a list: a mention brings one value, not all that follow
  Option path() const;            ///< a leading `~` means HOME; see expand_home
  Option text_path() const;       ///< a path, or `-` for standard input, once in a line

 private:
  CLI::Option* option_;
};

/// One subcommand. A name that starts with a dash is an option's, any other a place in the line;
/// values are set while the line is read and keep what they held where it does not name them: the
/// help shows that as the default. A text is the argument byte for byte: brackets, braces, commas
/// and an empty text mean nothing else. Underscores in a long option's name read as dashes.
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

  /// The options that follow are listed under this title.
  void group(std::string_view title) { group_ = title; }

  /// Takes what no option of the command matches, in order, instead of refusing it.
  void other_arguments(std::vector<std::string>& arguments);

  /// Ends the message for an argument that is not expected.
  void unknown_hint(std::string_view text) { unknown_hint_ = text; }

  void on_run(CommandRun run) { run_ = std::move(run); }

 private:
  friend class CommandLine;

  bool read(const std::vector<std::string>& given);
  std::vector<std::string> marked(const std::vector<std::string>& given) const;
  void refuse_unknown(const std::string& text, const std::string& name) const;
  std::string refusal_of(const CLI::ParseError& error) const;
  void check_standard_input() const;
  [[noreturn]] void refuse(const std::string& reason) const;

  CLI::App* app_;
  std::string unknown_hint_;
  std::string group_ = "Options";
  std::vector<std::string>* other_arguments_ = nullptr;
  CommandRun run_;
};

/// The program's command line, of which exactly one subcommand is to be named. Only its source
/// includes CLI11, which takes longer to compile than most commands.
class CommandLine {
 public:
  CommandLine(std::string_view description, std::string_view version);
  ~CommandLine();

  /// The commands that follow are listed under this title.
  void group(std::string_view title) { group_ = title; }

  /// Stays valid as long as the command line. The help is one or several sentences, the first of
  /// which stands in the list of commands, and then lines `Example: dsmoe NAME ...`.
  Command& subcommand(std::string_view name, std::string_view help);

  /// Ends the list of commands.
  void examples(std::string_view text);

  /// Returns a command's help, or the list of all for an empty name. Throws Error.
  std::string help(const std::string& command) const;

  /// Returns a script for `bash` or `zsh`.
  std::string completion(const std::string& shell) const;

  /// Reads the line and runs the command it names, or prints the help or version it asks for;
  /// returns the exit code. Throws Error for a line that does not fit.
  int run(int argc, char** argv);

 private:
  std::vector<std::string> command_names() const;
  Command& find(const std::string& name) const;

  std::unique_ptr<CLI::App> app_;
  std::string version_;
  std::string group_ = "Commands";
  std::vector<std::unique_ptr<Command>> commands_;
};

}  // namespace dsmoe
