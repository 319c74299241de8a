#include "common/run_lock.h"

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <memory>

#include "common/error.h"
#include "support/temporary_directory.h"

namespace dsmoe {

TEST_CASE("a run directory is locked against every other process and free afterwards") {
  const TemporaryDirectory directory;
  auto lock = std::make_unique<RunLock>(posix_io(), directory.file(""));
  // 0: locked out with a message that names this process; 1: got in; 2: another message.
  const auto try_in_child = [&, parent = getpid()] {
    const pid_t child = fork();
    if (child == 0) {
      try {
        const RunLock second(posix_io(), directory.file(""));
        _exit(1);
      } catch (const Error& error) {
        const bool named =
            std::string(error.what()).find(std::to_string(parent)) != std::string::npos;
        _exit(named ? 0 : 2);
      }
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
  };
  CHECK(try_in_child() == 0);
  lock.reset();
  CHECK(try_in_child() == 1);
}

TEST_CASE("a lock whose holder was killed is free") {
  const TemporaryDirectory directory;
  const pid_t child = fork();
  if (child == 0) {
    const RunLock lock(posix_io(), directory.file(""));
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(WIFSIGNALED(status));
  CHECK_NOTHROW(RunLock(posix_io(), directory.file("")));
}

}  // namespace dsmoe
