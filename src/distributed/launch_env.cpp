#include "distributed/launch_env.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <sstream>
#include <string_view>
#include <vector>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr int64_t kMaxWorldSize = 1 << 20;

// Names in order of precedence; the first one set is used.
using Names = std::vector<const char*>;

struct Launcher {
  std::string_view name;
  const char* rank;
  Names world_size;
  const char* local_rank;
  const char* local_size;
};

constexpr std::string_view kSlurm = "Slurm";

// In order of precedence. SLURM_NTASKS is the job's count, which a step may differ from; versions
// of Slurm without SLURM_STEP_NUM_TASKS set it to the step's.
const std::array kLaunchers = {
    Launcher{"torchrun", "RANK", {"WORLD_SIZE"}, "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    Launcher{kSlurm,
             "SLURM_PROCID",
             {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"},
             "SLURM_LOCALID",
             nullptr},
    Launcher{"Open MPI",
             "OMPI_COMM_WORLD_RANK",
             {"OMPI_COMM_WORLD_SIZE"},
             "OMPI_COMM_WORLD_LOCAL_RANK",
             "OMPI_COMM_WORLD_LOCAL_SIZE"},
    Launcher{"PMI", "PMI_RANK", {"PMI_SIZE"}, "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
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

struct Variable {
  const char* name;
  std::string value;
};

std::optional<Variable> first_of(const Environment& environment, const Names& names) {
  for (const char* name : names) {
    if (auto value = environment(name)) return Variable{name, *value};
  }
  return std::nullopt;
}

// sbatch and salloc set SLURM_* for themselves too. Only srun's tasks have a SLURM_STEP_ID, besides
// the steps in which Slurm runs a batch script or an interactive shell: their ids are reserved.
bool is_slurm_task(const Environment& environment) {
  constexpr int64_t kFirstReservedStep = 0xfffffff0;
  const auto step = environment("SLURM_STEP_ID");
  if (!step) return false;
  constexpr int64_t kLastStep = 0xffffffff;
  return number("SLURM_STEP_ID", *step, 0, kLastStep) < kFirstReservedStep;
}

bool is_started_by(const Launcher& launcher, const Environment& environment) {
  if (launcher.name == kSlurm && !is_slurm_task(environment)) return false;
  return environment(launcher.rank) || first_of(environment, launcher.world_size);
}

// Returns the tasks of `node`, counted from 0: 1 for node 3 of "2(x3),1". Returns nothing if the
// list is shorter.
std::optional<int64_t> tasks_of_node(const std::string& list, int64_t node) {
  constexpr const char* kName = "SLURM_STEP_TASKS_PER_NODE";
  std::istringstream entries(list);
  for (std::string entry; std::getline(entries, entry, ',');) {
    const auto open = entry.find("(x");
    int64_t n_nodes = 1;
    if (open != std::string::npos) {
      const auto repeat = entry.substr(open + 2, entry.find(')', open) - open - 2);
      n_nodes = number(kName, repeat, 1, kMaxWorldSize);
    }
    const int64_t n_tasks = number(kName, entry.substr(0, open), 1, kMaxWorldSize);
    if (node < n_nodes) return n_tasks;
    node -= n_nodes;
  }
  return std::nullopt;
}

// The step's tasks on this node.
std::optional<int64_t> slurm_local_size(const Environment& environment, int64_t world_size) {
  const auto per_node = environment("SLURM_STEP_TASKS_PER_NODE");
  const auto node = environment("SLURM_NODEID");
  if (per_node && node) {
    return tasks_of_node(*per_node, number("SLURM_NODEID", *node, 0, kMaxWorldSize));
  }
  const auto job_per_node = environment("SLURM_NTASKS_PER_NODE");
  if (!job_per_node) return std::nullopt;
  const auto n_tasks = number("SLURM_NTASKS_PER_NODE", *job_per_node, 1, kMaxWorldSize);
  return std::min(n_tasks, world_size);
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
  Rendezvous rendezvous;
  rendezvous.file = environment("DSMOE_RENDEZVOUS_FILE").value_or("");
  if (!rendezvous.file.empty()) return rendezvous;
  rendezvous.address = environment("MASTER_ADDR").value_or("");
  if (rendezvous.address.empty() && env.launcher == kSlurm) {
    const Names lists = {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"};
    const auto list = first_of(environment, lists);
    if (list) rendezvous.address = first_host(list->value);
  }
  if (const auto port = environment("MASTER_PORT")) {
    rendezvous.port = static_cast<int>(number("MASTER_PORT", *port, 1, 65535));
  }
  if (rendezvous.address.empty()) {
    throw Error(
        fmt::format("MASTER_ADDR: expected the host of rank 0, as {} starts {} ranks, got nothing; "
                    "set it and MASTER_PORT",
                    env.launcher,
                    env.world_size));
  }
  rendezvous.is_hosted = environment("TORCHELASTIC_USE_AGENT_STORE") == "True";
  if (const auto start = environment("TORCHELASTIC_RESTART_COUNT")) {
    rendezvous.start = number("TORCHELASTIC_RESTART_COUNT", *start, 0, kMaxWorldSize);
  }
  return rendezvous;
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
    const auto needed = [&](const Names& names, int64_t lowest, int64_t highest) {
      const auto variable = first_of(environment, names);
      if (variable) return number(variable->name, variable->value, lowest, highest);
      throw Error(fmt::format("{}: expected a number, as {} sets it beside {} and {}, got nothing",
                              names.front(),
                              launcher.name,
                              launcher.rank,
                              launcher.world_size.front()));
    };
    env.launcher = launcher.name;
    env.world_size = needed(launcher.world_size, 1, kMaxWorldSize);
    env.rank = needed({launcher.rank}, 0, env.world_size - 1);
    if (const auto local_rank = environment(launcher.local_rank)) {
      env.local_rank = number(launcher.local_rank, *local_rank, 0, env.world_size - 1);
    }
    if (launcher.name == kSlurm) {
      env.local_size = slurm_local_size(environment, env.world_size).value_or(1);
    } else if (const auto local_size = environment(launcher.local_size)) {
      env.local_size = number(launcher.local_size, *local_size, 1, env.world_size);
    }
    if (env.world_size > 1) env.rendezvous = find_rendezvous(environment, env);
    break;
  }
  return env;
}

}  // namespace dsmoe
