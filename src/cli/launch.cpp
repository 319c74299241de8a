#include <filesystem>
#include <memory>

#include "cli/commands.h"
#include "common/stop_signal.h"
#include "distributed/local_launch.h"

namespace dsmoe {

void add_launch_command(CLI::App& app, CommandRun& run) {
  auto options = std::make_shared<LocalLaunch>();
  auto* command = app.add_subcommand(
      "launch",
      "Runs a command on several ranks of this host; torchrun, srun and mpirun do it on many.\n"
      "Example: dsmoe launch -n 2 -- train configs/quickstart.yaml --threads=1");
  command->add_option("-n,--ranks", options->n_ranks, "processes")
      ->required()
      ->check(CLI::Range(int64_t{1}, int64_t{1024}));
  command
      ->add_option("--grace", options->grace_seconds, "seconds from a failure to the end by force")
      ->check(CLI::Range(0.0, 3600.0));
  command->add_option("command", options->command, "what dsmoe is to do, after --")->required();
  command->callback([options, &run] {
    run = [options] {
      auto launch = *options;
      launch.command.insert(launch.command.begin(),
                            std::filesystem::read_symlink("/proc/self/exe"));
      install_stop_signal();
      return launch_local(launch);
    };
  });
}

}  // namespace dsmoe
