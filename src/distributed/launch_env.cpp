#include "distributed/launch_env.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cstdlib>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr int64_t kMaxWorldSize = 1 << 20;

struct Launcher {
  const char* name;
  const char* rank;
  const char* world_size;
  const char* local_rank;
  const char* local_size;
};

// In order of precedence.
constexpr std::array kLaunchers = {
    Launcher{"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    Launcher{"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"},
    Launcher{"Open MPI",
             "OMPI_COMM_WORLD_RANK",
             "OMPI_COMM_WORLD_SIZE",
             "OMPI_COMM_WORLD_LOCAL_RANK",
             "OMPI_COMM_WORLD_LOCAL_SIZE"},
    Launcher{"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
};

int64_t number(const std::string& name, const std::string& text, int64_t lowest, int64_t highest) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end || value < lowest || value > highest) {
    throw Error(fmt::format(
        "{}: expected an integer from {} to {}, got '{}'", name, lowest, highest, text));
  }
  return value;
}

// sbatch and salloc set SLURM_* for themselves too; only srun's tasks have SLURM_STEP_ID.
bool is_started_by(const Launcher& launcher, const Environment& environment) {
  const bool is_slurm = std::string_view(launcher.rank) == "SLURM_PROCID";
  if (is_slurm && !environment("SLURM_STEP_ID")) return false;
  return environment(launcher.rank) || environment(launcher.world_size);
}

// "node[03-05,9],other" -> "node03"
std::string first_host(const std::string& list) {
  const auto open = list.find('[');
  const auto end = list.find_first_of(",[");
  const std::string stem = list.substr(0, end);
  if (open == std::string::npos || open != end) return stem;
  return stem + list.substr(open + 1, list.find_first_of("-,]", open) - open - 1);
}

Rendezvous find_rendezvous(const Environment& environment, const LaunchEnv& env) {
  Rendezvous meeting;
  meeting.file = environment("DSMOE_RENDEZVOUS_FILE").value_or("");
  if (!meeting.file.empty()) return meeting;
  meeting.address = environment("MASTER_ADDR").value_or("");
  if (meeting.address.empty() && env.launcher == "Slurm") {
    meeting.address = first_host(environment("SLURM_STEP_NODELIST").value_or(""));
  }
  if (const auto port = environment("MASTER_PORT")) {
    meeting.port = static_cast<int>(number("MASTER_PORT", *port, 1, 65535));
  }
  if (meeting.address.empty()) {
    throw Error(
        fmt::format("MASTER_ADDR: expected the host of rank 0, as {} starts {} ranks, got nothing; "
                    "set it and MASTER_PORT",
                    env.launcher,
                    env.world_size));
  }
  meeting.is_hosted = environment("TORCHELASTIC_USE_AGENT_STORE") == "True";
  return meeting;
}

}  // namespace

std::optional<std::string> process_environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

LaunchEnv read_launch_env(const Environment& environment) {
  LaunchEnv env;
  for (const auto& launcher : kLaunchers) {
    if (!is_started_by(launcher, environment)) continue;
    const auto needed = [&](const char* name) {
      const auto value = environment(name);
      if (!value) {
        throw Error(
            fmt::format("{}: expected a number, as {} sets it beside {} and {}, got nothing",
                        name,
                        launcher.name,
                        launcher.rank,
                        launcher.world_size));
      }
      return *value;
    };
    env.launcher = launcher.name;
    env.world_size = number(launcher.world_size, needed(launcher.world_size), 1, kMaxWorldSize);
    env.rank = number(launcher.rank, needed(launcher.rank), 0, env.world_size - 1);
    if (const auto local_rank = environment(launcher.local_rank)) {
      env.local_rank = number(launcher.local_rank, *local_rank, 0, env.world_size - 1);
    }
    if (const auto local_size = environment(launcher.local_size)) {
      env.local_size = number(launcher.local_size, *local_size, 1, env.world_size);
    }
    if (env.world_size > 1) env.rendezvous = find_rendezvous(environment, env);
    break;
  }
  return env;
}

}  // namespace dsmoe
