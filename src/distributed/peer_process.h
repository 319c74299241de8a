#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace dsmoe {

/// The process of a rank, as other ranks can look it up.
struct PeerProcess {
  std::string host;  ///< its name, for people
  /// Kernel and PID namespace: equal for processes that see each other in /proc. Empty if /proc
  /// does not report it.
  std::string pid_domain;
  int64_t pid = 0;
  int64_t start_time = 0;  ///< in clock ticks since boot: differs for a recycled pid
};

PeerProcess this_process();

/// One line, for the store.
std::string to_text(const PeerProcess& process);

/// Throws RunError for a text that to_text did not write.
PeerProcess parse_peer_process(const std::string& text);

/// The ranks' processes by rank, as far as they are known.
using PeerProcesses = std::vector<std::optional<PeerProcess>>;

/// Describes the other ranks' processes from /proc: names those that are gone or stopped; if there
/// are none, those that run. Names the ranks that could not be checked because they run elsewhere
/// or are not known yet.
///
/// patience_seconds  time to look again while every process is running: a process needs a moment to
///                   end after its sockets closed
/// sleep             called between two looks; a test passes one that takes no time
std::string describe_peers(const PeerProcesses& processes,
                           int64_t own_rank,
                           double patience_seconds,
                           const std::function<void(std::chrono::milliseconds)>& sleep =
                               std::this_thread::sleep_for<int64_t, std::milli>);

}  // namespace dsmoe
