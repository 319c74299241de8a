// Preloaded into the real program (LD_PRELOAD): one of the calls that make files or print results
// fails.
//   DSMOE_FAULT_AT     the call, counted from 1; 0: only count
//   DSMOE_FAULT_ERROR  its errno
//   DSMOE_FAULT_LOG    a file that gets the name of each call, one a line
// Counted: open with O_CREAT, mkdir, fsync, close and write of files opened so, rename, renameat2,
// link, and write to standard output. Removals are not: the program must be able to clean up.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int kMaxFiles = 4096;
std::array<std::atomic<bool>, kMaxFiles> is_output{};
std::atomic<int> n_calls{0};

int number_of(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr ? 0 : std::atoi(text);
}

// Counts a call; true if it is the one to fail, with errno set.
bool fails(const char* name) {
  static const int at = number_of("DSMOE_FAULT_AT");
  static const int error = number_of("DSMOE_FAULT_ERROR");
  static const int log = [] {
    const char* path = std::getenv("DSMOE_FAULT_LOG");
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    return path == nullptr ? -1
                           : static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, 0644));
  }();
  if (log >= 0) {
    syscall(SYS_write, log, name, std::strlen(name));
    syscall(SYS_write, log, "\n", 1);
  }
  if (++n_calls != at) return false;
  errno = error;
  return true;
}

bool counts(int fd) { return fd >= 0 && fd < kMaxFiles && is_output[static_cast<size_t>(fd)]; }

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

int open_file(const char* path, int flags, mode_t mode) {
  const bool makes = (flags & O_CREAT) != 0;
  if (makes && fails("open")) return -1;
  const int fd = static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
  if (fd >= 0 && fd < kMaxFiles) {
    is_output[static_cast<size_t>(fd)] = (flags & (O_WRONLY | O_RDWR | O_DIRECTORY)) != 0;
  }
  return fd;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return open_file(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return open_file(path, flags, mode);
}

ssize_t write(int fd, const void* data, size_t size) {
  if ((counts(fd) || fd == STDOUT_FILENO) && fails("write")) return -1;
  return syscall(SYS_write, fd, data, size);
}

int fsync(int fd) {
  if (counts(fd) && fails("fsync")) return -1;
  return static_cast<int>(syscall(SYS_fsync, fd));
}

int close(int fd) {
  const bool failed = counts(fd) && fails("close");
  const int error = errno;
  if (fd >= 0 && fd < kMaxFiles) is_output[static_cast<size_t>(fd)] = false;
  const int result = static_cast<int>(syscall(SYS_close, fd));
  if (!failed) return result;
  errno = error;
  return -1;
}

int mkdir(const char* path, mode_t mode) {
  return fails("mkdir") ? -1 : next<int (*)(const char*, mode_t)>("mkdir")(path, mode);
}

int rename(const char* from, const char* to) {
  return fails("rename") ? -1 : next<int (*)(const char*, const char*)>("rename")(from, to);
}

int renameat2(int from_fd, const char* from, int to_fd, const char* to, unsigned flags) {
  if (fails("renameat2")) return -1;
  return static_cast<int>(syscall(SYS_renameat2, from_fd, from, to_fd, to, flags));
}

int link(const char* from, const char* to) {
  return fails("link") ? -1 : next<int (*)(const char*, const char*)>("link")(from, to);
}
}
