#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dsmoe {

struct LocalLaunch {
  int64_t n_ranks = 1;
  std::vector<std::string> command;  ///< program and arguments of every rank
  std::string scratch = "/tmp";      ///< where the ranks' meeting point is made, and removed
  double grace_seconds = 30;         ///< from the first failure, or a stop, to the end by force
  /// Ranks start with the signals blocked that release_signals delivers: one that is sent while the
  /// program is loaded is not lost, nor does it end the rank. For commands that release them.
  bool holds_signals = false;
};

/// Runs one process per rank on this host, each line of their output behind `[rank] `, and returns
/// the exit code of the first that failed, or 0. When one fails the others are told to stop, then
/// killed; signals that ask this process to stop go to all ranks. Killed ranks count as 128 plus
/// the signal. No rank outlives this process, and no process of its group outlives a rank. Output
/// is read to the end even where it can no longer be written: a lost terminal or pipe neither
/// blocks nor ends a rank. Throws RunError where a process cannot be started, and where a job that
/// succeeded printed what standard output did not take.
int launch_local(const LocalLaunch& launch);

}  // namespace dsmoe
