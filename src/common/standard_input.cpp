#include "common/standard_input.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "common/error.h"
#include "common/stop_signal.h"

namespace dsmoe {
namespace {

constexpr size_t kPieceBytes = 1 << 16;

[[noreturn]] void fail(const std::string& what) {
  throw RunError(fmt::format("standard input: cannot be {}: {}", what, std::strerror(errno)));
}

int open_nameless_file(Io& io, const std::string& directory) {
  auto path = directory + "/dsmoe-input-XXXXXX";
  const int fd = ::mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0) fail("copied to '" + directory + "'");
  io.unlink(path);
  return fd;
}

// A read would wait through a stop request; poll does not.
ssize_t read_piece(char* data, size_t size) {
  while (true) {
    pollfd descriptor{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    if (::poll(&descriptor, 1, -1) < 0) {
      if (errno != EINTR) return -1;
      if (stop_requested()) throw StoppedError("standard input: stopped before its end");
      continue;
    }
    const ssize_t n = ::read(STDIN_FILENO, data, size);
    if (n >= 0 || (errno != EINTR && errno != EAGAIN)) return n;
  }
}

int copy_standard_input(Io& io) {
  const auto directory = std::filesystem::temp_directory_path().string();
  const int copy = open_nameless_file(io, directory);
  std::array<char, kPieceBytes> piece{};
  ssize_t n = 0;
  while ((n = read_piece(piece.data(), piece.size())) > 0) {
    write_all(
        io, copy, piece.data(), static_cast<size_t>(n), directory + ": copy of standard input");
  }
  if (n < 0) fail("read");
  return copy;
}

}  // namespace

int open_standard_input(Io& io) {
  static const int copy = copy_standard_input(io);  // the process has one
  return ::fcntl(copy, F_DUPFD_CLOEXEC, 0);
}

}  // namespace dsmoe
