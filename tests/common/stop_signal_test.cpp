#include "common/stop_signal.h"

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>

namespace dsmoe {
namespace {

// Runs in a child: signal state belongs to the process.
int status_of_child(void (*work)()) {
  const pid_t child = fork();
  if (child == 0) {
    work();
    _exit(3);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

}  // namespace

TEST_CASE("the first SIGTERM or SIGINT sets the stop flag, the second ends the process") {
  const int first = status_of_child([] {
    install_stop_signal();
    const bool before = stop_requested();
    raise(SIGTERM);
    _exit(!before && stop_requested() ? 0 : 1);
  });
  CHECK(WIFEXITED(first));
  CHECK(WEXITSTATUS(first) == 0);
  const int second = status_of_child([] {
    install_stop_signal();
    raise(SIGINT);
    raise(SIGINT);
  });
  CHECK_FALSE((WIFEXITED(second) && WEXITSTATUS(second) == 3));
}

}  // namespace dsmoe
