#include "distributed/local_launch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "common/error.h"
#include "common/exit_codes.h"
#include "common/log.h"
#include "common/standard_output.h"
#include "common/stop_signal.h"

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPollMilliseconds = 50;
constexpr size_t kLongestLine = 1 << 16;
// Limit for a killed process to end, and for output of its descendants after the last rank has
// ended.
constexpr std::chrono::seconds kLastPatience{5};

// One end of a rank's output, passed on line by line.
struct Stream {
  int fd = -1;
  FILE* to = nullptr;
  std::string prefix;
  std::string line;
};

struct Rank {
  pid_t pid = -1;  // also its process group
  std::optional<int> exit_code;
};

class RendezvousFolder {
 public:
  explicit RendezvousFolder(const std::string& scratch)
      : folder_(scratch + "/dsmoe-launch-XXXXXX") {
    if (mkdtemp(folder_.data()) == nullptr) {
      throw RunError(fmt::format(
          "launch: expected a folder to write in, got '{}': {}", scratch, strerror(errno)));
    }
  }
  ~RendezvousFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  RendezvousFolder(const RendezvousFolder&) = delete;
  RendezvousFolder& operator=(const RendezvousFolder&) = delete;
  std::string file() const { return folder_ + "/ranks"; }

 private:
  std::string folder_;
};

std::vector<std::string> environment_of(const LocalLaunch& launch,
                                        int64_t rank,
                                        const std::string& file) {
  return {fmt::format("RANK={}", rank),
          fmt::format("LOCAL_RANK={}", rank),
          fmt::format("LOCAL_WORLD_SIZE={}", launch.n_ranks),
          fmt::format("WORLD_SIZE={}", launch.n_ranks),
          "DSMOE_RENDEZVOUS_FILE=" + file};
}

// In the child: signals that this process ignores or handles get their default action, except an
// ignored SIGHUP (nohup).
void restore_signals(bool holds_signals) {
  for (const int signal_number : {SIGPIPE, SIGXFSZ, SIGINT, SIGTERM, SIGUSR1}) {
    signal(signal_number, SIG_DFL);
  }
  struct sigaction hangup = {};
  sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) signal(SIGHUP, SIG_DFL);
  if (!holds_signals) release_signals();
}

struct RankStart {
  char* const* arguments;
  char* const* variables;
  int out;
  int error;
  pid_t parent;
  bool holds_signals;
};

// In the child: only calls that are safe after fork.
[[noreturn]] void become_rank(const RankStart& start) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != start.parent) _exit(1);
  dup2(start.out, STDOUT_FILENO);
  dup2(start.error, STDERR_FILENO);
  for (auto* variable = start.variables; *variable != nullptr; ++variable) putenv(*variable);
  restore_signals(start.holds_signals);
  execvp(start.arguments[0], start.arguments);
  _exit(127);
}

class Job {
 public:
  Job(const LocalLaunch& launch, const std::string& rendezvous_file) : launch_(launch) {
    for (int64_t rank = 0; rank < launch.n_ranks; ++rank) start(rank, rendezvous_file);
  }
  ~Job() { signal_all(SIGKILL); }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  int run() {
    while (n_running() > 0) {
      pass_output_on();
      reap();
      if (stop_requested() && !deadline_) stop(SIGTERM);
      if (take_trace_request()) signal_all(SIGUSR1);
      if (deadline_ && Clock::now() > *deadline_) end_by_force();
    }
    drain();
    return first_failure_.value_or(0);
  }

 private:
  void start(int64_t rank, const std::string& rendezvous_file) {
    auto variables = environment_of(launch_, rank, rendezvous_file);
    std::vector<char*> variable_pointers;
    for (auto& variable : variables) variable_pointers.push_back(variable.data());
    variable_pointers.push_back(nullptr);
    std::vector<char*> arguments;
    for (auto& argument : launch_.command) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    std::array<int, 2> out = {};
    std::array<int, 2> error = {};
    if (pipe2(out.data(), O_CLOEXEC) != 0 || pipe2(error.data(), O_CLOEXEC) != 0) {
      throw RunError(fmt::format("launch: cannot open a pipe: {}", strerror(errno)));
    }
    const RankStart child{.arguments = arguments.data(),
                          .variables = variable_pointers.data(),
                          .out = out[1],
                          .error = error[1],
                          .parent = getpid(),
                          .holds_signals = launch_.holds_signals};
    hold_signals();  // none may reach the child while it has this process's handlers
    const pid_t pid = fork();
    if (pid == 0) become_rank(child);
    const int fork_error = errno;
    release_signals();
    if (pid < 0) {
      throw RunError(fmt::format("launch: cannot start rank {}: {}", rank, strerror(fork_error)));
    }
    setpgid(pid, pid);
    close(out[1]);
    close(error[1]);
    ranks_.push_back({.pid = pid, .exit_code = {}});
    const auto prefix = fmt::format("[{}] ", rank);
    streams_.push_back({.fd = out[0], .to = stdout, .prefix = prefix, .line = {}});
    streams_.push_back({.fd = error[0], .to = stderr, .prefix = prefix, .line = {}});
  }

  int64_t n_running() const {
    int64_t n = 0;
    for (const auto& rank : ranks_) n += rank.exit_code ? 0 : 1;
    return n;
  }

  // Waits a moment for output; returns whether there may be more.
  bool pass_output_on() {
    std::vector<pollfd> polls;
    for (const auto& stream : streams_)
      polls.push_back({.fd = stream.fd, .events = POLLIN, .revents = 0});
    const int n_ready = poll(polls.data(), polls.size(), kPollMilliseconds);
    if (n_ready < 0) return errno == EINTR;
    for (size_t i = 0; n_ready > 0 && i < streams_.size(); ++i) {
      if (polls[i].revents != 0) read_some(streams_[i]);
    }
    return n_ready > 0;
  }

  // Reads the rest of the ranks' output. A process that left its rank's group may hold the pipes
  // open and write forever.
  void drain() {
    const auto end = Clock::now() + kLastPatience;
    while (pass_output_on() && Clock::now() < end) continue;
    for (auto& stream : streams_) {
      if (!stream.line.empty()) print_line(stream);
    }
  }

  void read_some(Stream& stream) {
    std::array<char, 4096> bytes{};
    const ssize_t n = read(stream.fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) return;
    if (n <= 0) {
      close(stream.fd);
      stream.fd = -1;  // poll passes it over
      if (!stream.line.empty()) print_line(stream);
      return;
    }
    for (ssize_t i = 0; i < n; ++i) {
      const char c = bytes[static_cast<size_t>(i)];
      if (c != '\n') stream.line += c;
      if (c == '\n' || stream.line.size() == kLongestLine) print_line(stream);
    }
  }

  // Lost lines of standard error are no failure; StandardOutput records failed writes of results.
  static void print_line(Stream& stream) {
    const auto line = stream.prefix + stream.line + "\n";
    if (stream.to == stdout) {
      standard_output().write(line);
    } else {
      print_note(line);
    }
    stream.line.clear();
  }

  void reap() {
    for (size_t i = 0; i < ranks_.size(); ++i) {
      auto& rank = ranks_[i];
      if (rank.exit_code || !has_ended(rank.pid)) continue;
      kill(-rank.pid, SIGKILL);  // before another group can get this number
      int status = 0;
      waitpid(rank.pid, &status, 0);
      rank.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      if (*rank.exit_code == 0 || first_failure_) continue;
      first_failure_ = rank.exit_code;
      // Ranks that stop on request do so together; leave them their time.
      if (*rank.exit_code == kExitStopped) {
        stop(0);
      } else {
        print_complaint(
            fmt::format("launch: rank {} ended with {}; stopping the others", i, *rank.exit_code));
        stop(SIGTERM);
      }
    }
  }

  static bool has_ended(pid_t pid) {
    siginfo_t info = {};
    return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == pid;
  }

  // A process that waits for a disk or a driver may survive SIGKILL: it is left behind.
  void end_by_force() {
    signal_all(SIGKILL);
    if (Clock::now() < *deadline_ + kLastPatience) return;
    for (size_t i = 0; i < ranks_.size(); ++i) {
      if (ranks_[i].exit_code) continue;
      print_complaint(
          fmt::format("launch: rank {} (process {}) has not ended after SIGKILL; it is left behind",
                      i,
                      ranks_[i].pid));
      ranks_[i].exit_code = 128 + SIGKILL;
      first_failure_ = first_failure_.value_or(128 + SIGKILL);
    }
  }

  void stop(int signal_number) {
    if (signal_number != 0) signal_all(signal_number);
    deadline_ = Clock::now() +
                std::chrono::milliseconds(static_cast<int64_t>(1000 * launch_.grace_seconds));
  }

  void signal_all(int signal_number) const {
    for (const auto& rank : ranks_) {
      if (!rank.exit_code) kill(-rank.pid, signal_number);
    }
  }

  LocalLaunch launch_;
  std::vector<Rank> ranks_;
  std::vector<Stream> streams_;
  std::optional<int> first_failure_;
  std::optional<Clock::time_point> deadline_;
};

}  // namespace

int launch_local(const LocalLaunch& launch) {
  const RendezvousFolder folder(launch.scratch);
  return Job(launch, folder.file()).run();
}

}  // namespace dsmoe
