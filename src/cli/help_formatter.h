#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace dsmoe {

/// The type of an option whose `-` means standard input.
constexpr const char* kTextPath = "PATH|-";

/// `CHECKPOINT`, as the help names an argument without dashes.
std::string place_name(const CLI::Option& option);

/// Columns for help: COLUMNS, else those of the terminal that standard output is, else 100; from 40
/// to 120.
size_t help_width();

/// Lays out help for a width: usage, options by group in the order of their first one, lines that
/// are wrapped, examples last.
class HelpFormatter : public CLI::Formatter {
 public:
  explicit HelpFormatter(size_t width) : width_(width) {}

  /// The program's overview for the app without parent, else the page of a command.
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode) const override;

 private:
  std::string overview(const CLI::App& app) const;
  std::string page(const CLI::App& app) const;
  std::string option_rows(const std::string& title,
                          const std::vector<const CLI::Option*>& options) const;
  std::string row(const std::string& name, const std::string& text) const;

  size_t width_;
};

/// A command's description without its examples, and these: lines of `dsmoe ...`.
struct CommandText {
  std::string summary;  ///< first sentence
  std::string description;
  std::vector<std::string> examples;
};
CommandText split_description(const std::string& description);

}  // namespace dsmoe
