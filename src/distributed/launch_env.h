#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace dsmoe {

/// Rendezvous of the ranks of a job: a shared file or a TCP store.
struct Rendezvous {
  std::string file;        ///< path that all ranks share; empty: TCP
  std::string address;     ///< host of rank 0
  int port = 29500;        ///< the store listens on all interfaces, without authentication
  bool is_hosted = false;  ///< the launcher serves the store: rank 0 connects like the others
  int64_t start = 0;       ///< number of restarts by the launcher
};

/// This process's place in a job.
struct LaunchEnv {
  int64_t rank = 0;
  int64_t world_size = 1;
  int64_t local_rank = 0;  ///< among the ranks of this host
  int64_t local_size = 1;  ///< ranks of this host, if the launcher reports them
  std::string launcher;    ///< source of the variables: torchrun, Slurm, Open MPI, PMI; empty: none
  Rendezvous rendezvous;
};

/// One variable of the environment.
using Environment = std::function<std::optional<std::string>(const std::string&)>;

/// Environment of this process.
std::optional<std::string> process_environment(const std::string& name);

/// Reads the launcher's variables: RANK and WORLD_SIZE (torchrun, `dsmoe launch`), else Slurm's,
/// else Open MPI's, else PMI's (MPICH, Intel MPI). None of them: one rank. Of Slurm's variables the
/// step's count is used, not the job's: the tasks of one srun are the ranks; a batch script and the
/// shell of salloc are one rank. Throws Error for an incomplete set, a rank outside the world, or
/// several ranks without a rendezvous.
LaunchEnv read_launch_env(const Environment& environment);

}  // namespace dsmoe
