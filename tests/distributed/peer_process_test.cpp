#include "distributed/peer_process.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>

#include "common/error.h"

namespace dsmoe {
namespace {

// A process that waits to be killed.
class Child {
 public:
  Child() : pid_(fork()) {
    if (pid_ == 0) {
      while (true) pause();
    }
  }
  ~Child() { end(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void signal(int number) const { kill(pid_, number); }

  // As an unreaped child.
  void become_zombie() const {
    signal(SIGKILL);
    siginfo_t info = {};
    waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
  }

  void stop() const {
    signal(SIGSTOP);
    int status = 0;
    waitpid(pid_, &status, WUNTRACED);
  }

  void end() {
    if (pid_ < 0) return;
    signal(SIGKILL);
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
  }

  PeerProcess process() const;

 private:
  pid_t pid_;
};

// As the child itself would describe it.
PeerProcess Child::process() const {
  auto peer = this_process();
  peer.pid = pid_;
  std::ifstream stat("/proc/" + std::to_string(pid_) + "/stat");
  std::string field;
  for (int i = 1; i < 22; ++i) stat >> field;  // the name of the test program has no space
  REQUIRE(stat >> peer.start_time);
  return peer;
}

// Rank 0 asks; rank 1 is `peer`.
std::string describe(const PeerProcess& peer) {
  return describe_peers({this_process(), peer}, 0, /*patience_seconds=*/0);
}

}  // namespace

TEST_CASE("PeerProcess: to_text reads back", "[distributed]") {
  const auto mine = this_process();
  CHECK(mine.pid == getpid());
  CHECK(mine.start_time > 0);
  CHECK_FALSE(mine.pid_domain.empty());
  const auto read = parse_peer_process(to_text(mine));
  CHECK(read.pid == mine.pid);
  CHECK(read.start_time == mine.start_time);
  CHECK(read.host == mine.host);
  CHECK(read.pid_domain == mine.pid_domain);
  REQUIRE_THROWS_AS(parse_peer_process("no process"), RunError);
}

TEST_CASE("describe_peers: reports the state of each process", "[distributed]") {
  Child child;
  const auto peer = child.process();
  CHECK(describe(peer) == "rank 1 on this host was running when checked");
  child.stop();
  CHECK(describe(peer) == "rank 1 is stopped");
  child.signal(SIGCONT);
  child.become_zombie();
  CHECK(describe(peer) == "rank 1 has ended");
  child.end();
  CHECK(describe(peer) == "rank 1 is gone");
}

TEST_CASE("describe_peers: another process with a rank's number is not that rank",
          "[distributed]") {
  Child child;
  auto peer = child.process();
  peer.start_time -= 1;
  CHECK(describe(peer) == "rank 1 is gone");
}

TEST_CASE("describe_peers: a process that ends within the patience is reported gone",
          "[distributed]") {
  Child child;
  const auto peer = child.process();
  int n_looks = 0;
  const auto text = describe_peers({this_process(), peer}, 0, /*patience_seconds=*/60, [&](auto) {
    if (++n_looks == 2) child.become_zombie();
  });
  CHECK(n_looks == 2);
  CHECK(text == "rank 1 has ended");
}

TEST_CASE("describe_peers: names the processes that were not checked, and why", "[distributed]") {
  const auto mine = this_process();
  auto elsewhere = mine;
  elsewhere.pid_domain = "another boot/pid:[1]";
  auto no_proc = mine;
  no_proc.pid_domain = "";
  CHECK(describe_peers({mine, std::nullopt}, 0, 0) ==
        "the other ranks' processes are not known yet");
  CHECK(describe_peers({mine, elsewhere}, 0, 0) ==
        "rank 1 runs on another host and was not checked");
  CHECK(describe_peers({mine, no_proc, elsewhere, mine, std::nullopt}, 0, 0) ==
        "rank 3 on this host was running when checked, ranks 1 and 2 run on other hosts and were "
        "not checked, the process of rank 4 is not known yet");
  CHECK(describe_peers({mine, mine, mine, std::nullopt, std::nullopt}, 2, 0) ==
        "ranks 0 and 1 on this host were running when checked, the processes of ranks 3 and 4 are "
        "not known yet");
}

TEST_CASE("describe_peers: names the first of many ranks", "[distributed]") {
  const PeerProcesses many(20, this_process());
  CHECK(describe_peers(many, 0, 0) ==
        "ranks 1, 2, 3, 4, 5, 6, 7, 8 and 11 more on this host were running when checked");
}

}  // namespace dsmoe
