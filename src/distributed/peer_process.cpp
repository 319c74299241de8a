#include "distributed/peer_process.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

#include "common/error.h"

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kExitPollInterval{10};
constexpr size_t kMostNamed = 8;
constexpr int kFieldsFromStateToStartTime = 19;  // fields 3 and 22 of /proc/PID/stat

struct ProcessStatus {
  char state = '?';
  int64_t start_time = 0;
};

std::optional<ProcessStatus> read_status(const std::string& pid) {
  std::ifstream stat("/proc/" + pid + "/stat");
  std::string line;
  if (!std::getline(stat, line)) return std::nullopt;
  const auto name_end = line.rfind(") ");
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 2));
  ProcessStatus status;
  std::string skipped;
  fields >> status.state;
  for (int i = 1; i < kFieldsFromStateToStartTime; ++i) fields >> skipped;
  fields >> status.start_time;
  return fields ? std::optional(status) : std::nullopt;
}

// Empty if it runs.
std::string trouble_of(const PeerProcess& process) {
  const auto status = read_status(std::to_string(process.pid));
  if (!status || status->start_time != process.start_time) return "is gone";
  switch (status->state) {
    case 'Z':
    case 'X':
      return "has ended";
    case 'T':
    case 't':
      return "is stopped";
    default:
      return "";
  }
}

std::string read_pid_domain() {
  std::ifstream boot("/proc/sys/kernel/random/boot_id");
  std::string boot_id;
  std::array<char, 64> pid_namespace = {};
  const auto length = readlink("/proc/self/ns/pid", pid_namespace.data(), pid_namespace.size() - 1);
  if (!std::getline(boot, boot_id) || length <= 0) return "";
  return boot_id + "/" + pid_namespace.data();
}

// "rank 1", "ranks 1, 2 and 5"
std::string name_ranks(const std::vector<size_t>& ranks) {
  std::string names = ranks.size() == 1 ? "rank " : "ranks ";
  const size_t n_named = std::min(ranks.size(), kMostNamed);
  for (size_t i = 0; i < n_named; ++i) {
    if (i > 0) names += i + 1 == ranks.size() ? " and " : ", ";
    names += std::to_string(ranks[i]);
  }
  if (n_named < ranks.size()) names += fmt::format(" and {} more", ranks.size() - n_named);
  return names;
}

struct Findings {
  std::vector<std::string> troubles;
  std::vector<size_t> running;
  std::vector<size_t> elsewhere;
  std::vector<size_t> unknown;
};

Findings look_at(const PeerProcesses& processes, int64_t own_rank, const std::string& pid_domain) {
  Findings findings;
  for (size_t rank = 0; rank < processes.size(); ++rank) {
    if (static_cast<int64_t>(rank) == own_rank) continue;
    const auto& process = processes[rank];
    if (!process) {
      findings.unknown.push_back(rank);
    } else if (pid_domain.empty() || process->pid_domain != pid_domain) {
      findings.elsewhere.push_back(rank);
    } else if (const auto trouble = trouble_of(*process); !trouble.empty()) {
      findings.troubles.push_back(fmt::format("rank {} {}", rank, trouble));
    } else {
      findings.running.push_back(rank);
    }
  }
  return findings;
}

std::string to_sentence(const Findings& findings, size_t n_others) {
  std::vector<std::string> parts = findings.troubles;
  if (parts.size() > kMostNamed) {
    const size_t n_left = parts.size() - kMostNamed;
    parts.resize(kMostNamed);
    parts.push_back(fmt::format("{} more ranks are gone or stopped", n_left));
  }
  if (findings.troubles.empty() && !findings.running.empty()) {
    parts.push_back(fmt::format("{} on this host {} running when checked",
                                name_ranks(findings.running),
                                findings.running.size() == 1 ? "was" : "were"));
  }
  if (!findings.elsewhere.empty()) {
    const bool one = findings.elsewhere.size() == 1;
    parts.push_back(fmt::format("{} {} on {} and {} not checked",
                                name_ranks(findings.elsewhere),
                                one ? "runs" : "run",
                                one ? "another host" : "other hosts",
                                one ? "was" : "were"));
  }
  if (!findings.unknown.empty() && findings.unknown.size() == n_others) {
    parts.push_back("the other ranks' processes are not known yet");
  } else if (!findings.unknown.empty()) {
    const bool one = findings.unknown.size() == 1;
    parts.push_back(fmt::format("the process{} of {} {} not known yet",
                                one ? "" : "es",
                                name_ranks(findings.unknown),
                                one ? "is" : "are"));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

PeerProcess this_process() {
  std::array<char, 256> host = {};
  gethostname(host.data(), host.size() - 1);
  const auto status = read_status("self");
  return {.host = host.data(),
          .pid_domain = status ? read_pid_domain() : "",
          .pid = getpid(),
          .start_time = status ? status->start_time : 0};
}

std::string to_text(const PeerProcess& process) {
  return fmt::format(
      "{} {} {}/{}", process.pid, process.start_time, process.host, process.pid_domain);
}

PeerProcess parse_peer_process(const std::string& text) {
  PeerProcess process;
  std::istringstream fields(text);
  fields >> process.pid >> process.start_time >> std::ws;
  std::getline(fields, process.host, '/');
  if (!fields) throw RunError(fmt::format("ranks: expected a rank's process, got '{}'", text));
  std::getline(fields, process.pid_domain);
  return process;
}

std::string describe_peers(const PeerProcesses& processes,
                           int64_t own_rank,
                           double patience_seconds,
                           const std::function<void(std::chrono::milliseconds)>& sleep) {
  const auto pid_domain = read_pid_domain();
  const auto end = Clock::now() + std::chrono::duration<double>(patience_seconds);
  auto findings = look_at(processes, own_rank, pid_domain);
  while (findings.troubles.empty() && !findings.running.empty() && Clock::now() < end) {
    sleep(kExitPollInterval);
    findings = look_at(processes, own_rank, pid_domain);
  }
  return to_sentence(findings, processes.size() - 1);
}

}  // namespace dsmoe
