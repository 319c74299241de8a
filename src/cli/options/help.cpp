#include <memory>
#include <string>

#include "cli/commands.h"
#include "common/standard_output.h"

namespace dsmoe {

void add_help_command(CommandLine& line) {
  auto name = std::make_shared<std::string>();
  auto& command = line.subcommand("help",
                                  "Explain a command: the same as COMMAND --help.\n"
                                  "Example: dsmoe help eval");
  command.option("command", *name, "the command; without one, the list of all");
  command.on_run([name, &line] {
    print_out("{}", line.help(*name));
    return 0;
  });
}

void add_completion_command(CommandLine& line) {
  auto shell = std::make_shared<std::string>();
  auto& command = line.subcommand(
      "completion",
      "Print a script that completes commands, options and files in a shell.\n"
      "Example: dsmoe completion bash > ~/.local/share/bash-completion/completions/dsmoe");
  command.option("shell", *shell, "bash or zsh").choices({"bash", "zsh"}).required();
  command.on_run([shell, &line] {
    standard_output().write(line.completion(*shell));
    return 0;
  });
}

}  // namespace dsmoe
