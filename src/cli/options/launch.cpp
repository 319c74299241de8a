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
      "Runs a command on several ranks of this host; torchrun, srun and mpirun do it on many.\n"
      "Example: dsmoe launch -n 2 -- train configs/quickstart.yaml --threads=1");
  command.option("-n,--ranks", options->n_ranks, "processes").required().range(1, 1024);
  command.option("--grace", options->grace_seconds, "seconds from a failure to the end by force")
      .range(0.0, 3600.0);
  command.option("command", options->command, "what dsmoe is to do, after --").required();
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
