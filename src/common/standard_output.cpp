#include "common/standard_output.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/stop_signal.h"

namespace dsmoe {

void StandardOutput::write(std::string_view text) {
  while (!text.empty() && !is_lost()) {
    const ssize_t n = io_.write(fd_, text.data(), text.size());
    if (n > 0) {
      has_written_ = true;
      text.remove_prefix(static_cast<size_t>(n));
    } else if (n == 0 || (errno != EINTR && !(errno == EAGAIN && wait_until_writable()))) {
      fail("write");
    }
  }
}

void StandardOutput::write_generated(std::string_view text) {
  if (::isatty(fd_) != 0) return write(printable_text(text));
  write(text);
}

// Waits for a pipe that another program made non-blocking; returns false after a stop request.
bool StandardOutput::wait_until_writable() {
  pollfd descriptor{.fd = fd_, .events = POLLOUT, .revents = 0};
  while (::poll(&descriptor, 1, -1) < 0) {
    if (errno != EINTR || stop_requested()) return false;
  }
  return true;
}

std::string StandardOutput::finish() {
  if (has_written_ && !is_lost() && io_.close(fd_) != 0) fail("close");
  has_written_ = false;
  return failure_;
}

void StandardOutput::fail(const char* what) {
  failure_ = fmt::format("standard output: cannot {}: {}", what, std::strerror(errno));
}

StandardOutput& standard_output() {
  static StandardOutput output(posix_io(), STDOUT_FILENO);  // the process has one
  return output;
}

void reserve_standard_descriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // Takes the lowest free number; reading from it or writing to it fails with EBADF.
    [[maybe_unused]] const int taken =
        ::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

}  // namespace dsmoe
