#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace dsmoe {

/// The process of a rank, as the other ranks can look it up.
struct PeerProcess {
  std::string host;  ///< its name, for people
  /// Kernel and PID namespace: processes with the same one see each other in /proc. Empty where
  /// /proc does not say.
  std::string pid_domain;
  int64_t pid = 0;
  int64_t start_time = 0;  ///< in clock ticks since boot: a recycled pid has another
};

PeerProcess this_process();

/// One line, for the store.
std::string to_text(const PeerProcess& process);

/// Throws RunError for a text that to_text did not write.
PeerProcess parse_peer_process(const std::string& text);

/// The ranks' processes by rank, as far as they are known.
using PeerProcesses = std::vector<std::optional<PeerProcess>>;

/// Says what /proc shows of the other ranks' processes: which are gone or stopped; where none is,
/// which were running. Names the ranks that could not be checked because they run elsewhere or are
/// not known yet.
///
/// patience_seconds  how long to look again while every process is running: one whose sockets have
///                   just closed takes a moment to end
/// sleep             what it does between two looks; a test passes one that takes no time
std::string describe_peers(const PeerProcesses& processes,
                           int64_t own_rank,
                           double patience_seconds,
                           const std::function<void(std::chrono::milliseconds)>& sleep =
                               std::this_thread::sleep_for<int64_t, std::milli>);

}  // namespace dsmoe
