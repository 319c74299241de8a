#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dsmoe {

struct LocalLaunch {
  int64_t n_ranks = 1;
  std::vector<std::string> command;  ///< program and arguments of every rank
  std::string scratch = "/tmp";  ///< folder for the rendezvous file, which is removed at the end
  double grace_seconds = 30;     ///< from the first failure, or a stop, to SIGKILL
  /// Ranks start with the signals blocked that release_signals delivers: a signal sent while the
  /// program loads is not lost and does not end the rank. For commands that release them.
  bool holds_signals = false;
};

/// Runs one process per rank on this host, prints each line of their output behind `[rank] `, and
/// returns the exit code of the first rank that failed, or 0. After a failure the other ranks are
/// told to stop, then killed; stop signals to this process go to all ranks. Killed ranks count as
/// 128 plus the signal. No rank outlives this process, and no process of its group outlives a rank.
/// Output is read to the end even if it cannot be printed: a closed terminal or pipe neither blocks
/// nor ends a rank. Throws RunError if a process cannot be started, or if the output of a
/// successful job could not be printed.
int launch_local(const LocalLaunch& launch);

}  // namespace dsmoe
