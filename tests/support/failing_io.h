#pragma once

#include <cerrno>
#include <string>

#include "common/io.h"

namespace dsmoe {

/// The real calls, except that from the n-th changing call on (counted from 1) all fail with EIO.
class FailingIo final : public Io {
 public:
  explicit FailingIo(int first_failure) : first_failure_(first_failure) {}

  int open(const std::string& path, int flags, mode_t mode) override {
    return posix_io().open(path, flags, mode);
  }
  ssize_t write(int fd, const void* data, size_t size_bytes) override {
    if (fails()) return -1;
    return posix_io().write(
        fd, data, size_bytes > 1 ? size_bytes / 2 : size_bytes);  // short writes
  }
  ssize_t pread(int fd, void* data, size_t size_bytes, off_t offset) override {
    return posix_io().pread(fd, data, size_bytes, offset);
  }
  int ftruncate(int fd, off_t size_bytes) override {
    return fails() ? -1 : posix_io().ftruncate(fd, size_bytes);
  }
  int fsync(int fd) override { return fails() ? -1 : posix_io().fsync(fd); }
  int close(int fd) override { return posix_io().close(fd); }
  int rename(const std::string& from, const std::string& to) override {
    return fails() ? -1 : posix_io().rename(from, to);
  }
  int rename_no_replace(const std::string& from, const std::string& to) override {
    return fails() ? -1 : posix_io().rename_no_replace(from, to);
  }
  int exchange(const std::string& a, const std::string& b) override {
    return fails() ? -1 : posix_io().exchange(a, b);
  }
  int link(const std::string& from, const std::string& to) override {
    return fails() ? -1 : posix_io().link(from, to);
  }
  int mkdir(const std::string& path, mode_t mode) override {
    return fails() ? -1 : posix_io().mkdir(path, mode);
  }
  int unlink(const std::string& path) override { return fails() ? -1 : posix_io().unlink(path); }
  int rmdir(const std::string& path) override { return fails() ? -1 : posix_io().rmdir(path); }

  bool has_failed() const { return calls_ >= first_failure_; }

 private:
  bool fails() {
    errno = EIO;
    return ++calls_ >= first_failure_;
  }
  int first_failure_;
  int calls_ = 0;
};

}  // namespace dsmoe
