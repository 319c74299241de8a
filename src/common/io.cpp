#include "common/io.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "common/error.h"
#include "common/log.h"

namespace dsmoe {
namespace {

class PosixIo final : public Io {
 public:
  int open(const std::string& path, int flags, mode_t mode) override {
    return ::open(path.c_str(), flags | O_CLOEXEC, mode);
  }
  ssize_t write(int fd, const void* data, size_t size_bytes) override {
    return ::write(fd, data, size_bytes);
  }
  ssize_t pread(int fd, void* data, size_t size_bytes, off_t offset) override {
    return ::pread(fd, data, size_bytes, offset);
  }
  int ftruncate(int fd, off_t size_bytes) override { return ::ftruncate(fd, size_bytes); }
  int fsync(int fd) override { return ::fsync(fd); }
  int close(int fd) override { return ::close(fd); }
  int rename(const std::string& from, const std::string& to) override {
    return ::rename(from.c_str(), to.c_str());
  }
  int rename_no_replace(const std::string& from, const std::string& to) override {
    return ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE);
  }
  int exchange(const std::string& a, const std::string& b) override {
    return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE);
  }
  int link(const std::string& from, const std::string& to) override {
    return ::link(from.c_str(), to.c_str());
  }
  int mkdir(const std::string& path, mode_t mode) override { return ::mkdir(path.c_str(), mode); }
  int unlink(const std::string& path) override { return ::unlink(path.c_str()); }
  int rmdir(const std::string& path) override { return ::rmdir(path.c_str()); }
};

std::string reason() { return std::strerror(errno); }

[[noreturn]] void fail_run(const std::string& path, const char* what) {
  throw RunError(fmt::format("{}: cannot {}: {}", path, what, reason()));
}

// Closes on every path; the success path calls close() and checks the result.
class OpenFile {
 public:
  OpenFile(Io& io, int fd) : io_(io), fd_(fd) {}
  ~OpenFile() {
    if (fd_ >= 0) io_.close(fd_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int fd() const { return fd_; }
  int close() {
    const int fd = fd_;
    fd_ = -1;
    return io_.close(fd);
  }

 private:
  Io& io_;
  int fd_;
};

}  // namespace

Io& posix_io() {
  static PosixIo io;  // stateless
  return io;
}

std::string read_file(Io& io, const std::string& path, uint64_t max_size_bytes) {
  OpenFile file(io, io.open(path, O_RDONLY, 0));
  if (file.fd() < 0) throw Error(fmt::format("{}: cannot open: {}", path, reason()));
  struct stat status {};
  if (::fstat(file.fd(), &status) != 0 || !S_ISREG(status.st_mode)) {
    throw Error(fmt::format("{}: expected a regular file", path));
  }
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size > max_size_bytes) {
    throw Error(fmt::format("{}: expected at most {} bytes, got {}", path, max_size_bytes, size));
  }
  std::string bytes(size, '\0');
  for (uint64_t done = 0; done < size;) {
    const ssize_t n =
        io.pread(file.fd(), bytes.data() + done, size - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error(fmt::format("{}: cannot read: {}", path, reason()));
    if (n == 0) throw Error(fmt::format("{}: expected {} bytes, got {}", path, size, done));
    done += static_cast<uint64_t>(n);
  }
  return bytes;
}

void write_all(Io& io, int fd, const void* data, size_t size_bytes, const std::string& path) {
  const auto* bytes = static_cast<const char*>(data);
  for (size_t done = 0; done < size_bytes;) {
    const ssize_t n = io.write(fd, bytes + done, size_bytes - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_run(path, "write");
    done += static_cast<size_t>(n);
  }
}

void read_all(Io& io,
              int fd,
              void* data,
              size_t size_bytes,
              uint64_t offset,
              const std::string& path) {
  auto* bytes = static_cast<char*>(data);
  for (size_t done = 0; done < size_bytes;) {
    const ssize_t n =
        io.pread(fd, bytes + done, size_bytes - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
    if (n == 0) throw Error(fmt::format("{}: ends early, at byte {}", path, offset + done));
    done += static_cast<size_t>(n);
  }
}

void write_file(Io& io, const std::string& path, std::string_view bytes) {
  OpenFile file(io, io.open(path, O_WRONLY | O_CREAT | O_TRUNC, kFileMode));
  if (file.fd() < 0) fail_run(path, "create");
  write_all(io, file.fd(), bytes.data(), bytes.size(), path);
  // A failed fsync may be reported once and the data dropped: the file counts as lost, never
  // retried.
  if (io.fsync(file.fd()) != 0) fail_run(path, "fsync");
  if (file.close() != 0) fail_run(path, "close");
}

void rename_durably(Io& io, const std::string& from, const std::string& to) {
  if (io.rename(from, to) != 0) fail_run(to, "rename into place");
  const auto parent = std::filesystem::path(to).parent_path();
  fsync_directory(io, parent.empty() ? "." : parent.string());
}

void write_directory(Io& io,
                     const std::string& temporary,
                     const std::string& path,
                     const std::function<void()>& fill) {
  try {
    remove_tree(io, temporary);
    make_directories(io, temporary);
    fill();
    fsync_directory(io, temporary);
    rename_durably(io, temporary, path);
  } catch (...) {
    try {
      remove_tree(io, temporary);
    } catch (const RunError& error) {
      log_warning(fmt::format("a half written directory is left: {}", error.what()));
    }
    throw;
  }
}

void fsync_directory(Io& io, const std::string& path) {
  OpenFile directory(io, io.open(path, O_RDONLY | O_DIRECTORY, 0));
  if (directory.fd() < 0) fail_run(path, "open directory");
  if (io.fsync(directory.fd()) != 0) fail_run(path, "fsync directory");
}

void make_directories(Io& io, const std::string& path) {
  std::filesystem::path made;
  for (const auto& part : std::filesystem::path(path)) {
    made /= part;
    if (std::filesystem::is_directory(made)) continue;
    if (io.mkdir(made.string(), kDirectoryMode) != 0 && errno != EEXIST)
      fail_run(made.string(), "make directory");
    const auto parent = made.parent_path();
    fsync_directory(io, parent.empty() ? "." : parent.string());
  }
}

void remove_tree(Io& io, const std::string& path) {
  std::error_code missing;
  if (!std::filesystem::exists(std::filesystem::symlink_status(path, missing))) return;
  if (std::filesystem::is_directory(std::filesystem::symlink_status(path))) {
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      remove_tree(io, entry.path().string());
    }
    if (io.rmdir(path) != 0) fail_run(path, "remove directory");
  } else if (io.unlink(path) != 0) {
    fail_run(path, "remove");
  }
}

}  // namespace dsmoe
