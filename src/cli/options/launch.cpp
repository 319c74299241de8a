#include <filesystem>
#include <memory>

#include "cli/commands.h"
#include "common/stop_signal.h"
#include "distributed/local_launch.h"

namespace dsmoe {

void add_launch_command(CommandLine& line) {
  auto options = std::make_shared<LocalLaunch>();
  auto& command = line.subcommand(
      "launch",
      "Run a command on several ranks of this host; torchrun, srun and mpirun do it on many.\n"
      "Example: dsmoe launch -n 2 -- train configs/quickstart.yaml --threads=1");
  command.option("-n,--ranks", options->n_ranks, "start N processes").required().range(1, 1024);
  command.option("--grace", options->grace_seconds, "kill X seconds after a failure or a stop")
      .range(0.0, 3600.0);
  command.option("command", options->command, "what dsmoe does on each rank, after --").required();
  command.unknown_hint(
      "; the command goes after '--', as in 'dsmoe launch -n 2 -- train CONFIG.yaml'");
  command.on_run([options] {
    auto launch = *options;
    launch.command.insert(launch.command.begin(), std::filesystem::read_symlink("/proc/self/exe"));
    install_stop_signal();
    if (options->command.front() == "train") install_trace_signal();
    launch.holds_signals = true;
    return launch_local(launch);
  });
}

}  // namespace dsmoe
