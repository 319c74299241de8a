#include "common/run_lock.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "common/error.h"

namespace dsmoe {
namespace {

std::string describe_this_process() {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return fmt::format("process {} on {} since {:%Y-%m-%d %H:%M:%S}",
                     getpid(),
                     host.data(),
                     fmt::localtime(std::time(nullptr)));
}

std::string read_holder(Io& io, int fd) {
  std::array<char, 512> text{};
  const ssize_t n = io.pread(fd, text.data(), text.size() - 1, 0);
  std::string holder(text.data(), n > 0 ? static_cast<size_t>(n) : 0);
  while (!holder.empty() && holder.back() == '\n') holder.pop_back();
  return holder.empty() ? "another process" : holder;
}

Error in_use(const std::string& run_directory, const std::string& holder) {
  return Error(
      fmt::format("{}: in use by {}; wait for it or take another run_dir", run_directory, holder));
}

}  // namespace

RunLock::RunLock(Io& io, const std::string& run_directory)
    : io_(io), fd_(io.open(run_directory + "/run.lock", O_RDWR | O_CREAT | O_CLOEXEC, kFileMode)) {
  const auto path = run_directory + "/run.lock";
  if (fd_ < 0) throw RunError(fmt::format("{}: cannot be opened: {}", path, strerror(errno)));
  if (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    const auto holder = read_holder(io, fd_);
    io.close(fd_);
    throw in_use(run_directory, holder);
  }
  const auto text = describe_this_process() + "\n";
  try {
    if (io.ftruncate(fd_, 0) != 0) {
      throw RunError(fmt::format("{}: cannot be written: {}", path, strerror(errno)));
    }
    write_all(io, fd_, text.data(), text.size(), path);
  } catch (...) {
    io.close(fd_);
    throw;
  }
}

RunLock::~RunLock() { io_.close(fd_); }

void check_not_locked(Io& io, const std::string& run_directory) {
  const int fd = io.open(run_directory + "/run.lock", O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) return;  // no process has made it
  const bool is_free = flock(fd, LOCK_EX | LOCK_NB) == 0;
  const auto holder = is_free ? "" : read_holder(io, fd);
  io.close(fd);
  if (!is_free) throw in_use(run_directory, holder);
}

}  // namespace dsmoe
