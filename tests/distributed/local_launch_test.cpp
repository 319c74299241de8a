#include "distributed/local_launch.h"

#include <signal.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

struct Outcome {
  int code;
  std::string files;  // names of the ranks' files, in order
  std::string pid;    // content of the file of that name
};

// Runs a line of shell on every rank, in a temporary folder.
Outcome launch_shell(int64_t n_ranks, const std::string& line, double grace_seconds = 20) {
  const TemporaryDirectory folder;
  Outcome outcome = {};
  outcome.code = launch_local({.n_ranks = n_ranks,
                               .command = {"sh", "-c", "cd " + folder.file(".") + "; " + line},
                               .scratch = folder.file("."),
                               .grace_seconds = grace_seconds});
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder.file("."))) {
    names.insert(entry.path().filename().string());
  }
  for (const auto& name : names) outcome.files += name + " ";
  std::ifstream(folder.file("pid")) >> outcome.pid;
  return outcome;
}

}  // namespace

TEST_CASE("launch_local: every rank gets its number, and the rendezvous file is removed",
          "[distributed]") {
  const auto outcome = launch_shell(
      3, "test -d $(dirname $DSMOE_RENDEZVOUS_FILE) && touch $RANK-$LOCAL_RANK-of-$WORLD_SIZE");
  CHECK(outcome.code == 0);
  CHECK(outcome.files == "0-0-of-3 1-1-of-3 2-2-of-3 ");
}

TEST_CASE("launch_local: one failure ends all ranks and gives the exit code", "[distributed]") {
  const auto outcome =
      launch_shell(3, "if [ $RANK = 1 ]; then exit 9; fi; sleep 250; touch late-$RANK");
  CHECK(outcome.code == 9);
  CHECK(outcome.files.empty());  // the others were stopped before their end
}

TEST_CASE("launch_local: ranks that do not stop are killed after the grace time", "[distributed]") {
  // Rank 0 dies once rank 1 ignores the request to stop; rank 1 leaves a file when it is asked.
  const auto outcome =
      launch_shell(2,
                   "if [ $RANK = 0 ]; then until [ -e ready ]; do sleep 0.01; done; "
                   "kill -KILL $$; fi; trap 'touch asked' TERM; touch ready; "
                   "while true; do sleep 0.01; done",
                   3.0);
  CHECK(outcome.code == 128 + SIGKILL);
  CHECK(outcome.files == "asked ready ");
}

TEST_CASE("launch_local: ranks that stop on request may use the grace time", "[distributed]") {
  // The launcher has seen the end of rank 0 once its process is gone.
  const auto outcome =
      launch_shell(2,
                   "if [ $RANK = 0 ]; then echo $$ > pid; exit 75; fi; "
                   "until [ -s pid ] && ! kill -0 $(cat pid); do sleep 0.01; done; "
                   "touch finished; exit 75",
                   100);
  CHECK(outcome.code == 75);
  CHECK(outcome.files == "finished pid ");
}

TEST_CASE("launch_local: a process that a rank leaves behind ends with the rank and delays nothing",
          "[distributed]") {
  const auto outcome = launch_shell(1,
                                    "(while true; do echo more; sleep 0.02; done) & (sleep 600; "
                                    "touch late) & touch finished; exit 0");
  CHECK(outcome.code == 0);
  CHECK(outcome.files == "finished ");
}

TEST_CASE("launch_local: the output of a process that left its rank's group does not delay the job",
          "[distributed]") {
  const auto outcome =
      launch_shell(1,
                   "setsid sh -c 'echo $$ > pid; while true; do echo more; sleep 0.02; done' & "
                   "while ! test -s pid; do :; done; exit 0");
  CHECK(outcome.code == 0);
  std::stringstream pid(outcome.pid);
  pid_t stray = 0;
  REQUIRE(pid >> stray);
  kill(stray, SIGKILL);
}

TEST_CASE("launch_local: ranks handle the signals that this process ignores, except SIGHUP",
          "[distributed]") {
  const auto pipe_before = signal(SIGPIPE, SIG_IGN);
  const auto hangup_before = signal(SIGHUP, SIG_IGN);
  // A shell cannot handle a signal that was ignored when it began.
  const auto outcome = launch_shell(
      1,
      "trap 'touch handled-pipe' PIPE; trap 'touch handled-hangup' HUP; kill -PIPE $$; kill -HUP "
      "$$; exit 0");
  signal(SIGPIPE, pipe_before);
  signal(SIGHUP, hangup_before);
  CHECK(outcome.code == 0);
  CHECK(outcome.files == "handled-pipe ");
}

TEST_CASE("launch_local: a missing program is a failure", "[distributed]") {
  const TemporaryDirectory folder;
  CHECK(launch_local(
            {.n_ranks = 2, .command = {"/no/such/program"}, .scratch = folder.file(".")}) == 127);
}

}  // namespace dsmoe
