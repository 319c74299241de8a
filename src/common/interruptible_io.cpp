#include "common/interruptible_io.h"

#include <fcntl.h>

#include "common/stop_signal.h"

namespace dsmoe {
namespace {

class InterruptibleIo final : public Io {
 public:
  int open(const std::string& path, int flags, mode_t mode) override {
    if ((flags & O_CREAT) != 0) install_stop_signal();
    return below_.open(path, flags, mode);
  }
  ssize_t write(int fd, const void* data, size_t size_bytes) override {
    if (stop_requested()) throw StoppedError("stopped as asked; the output was not made");
    return below_.write(fd, data, size_bytes);
  }
  ssize_t pread(int fd, void* data, size_t size_bytes, off_t offset) override {
    return below_.pread(fd, data, size_bytes, offset);
  }
  int ftruncate(int fd, off_t size_bytes) override { return below_.ftruncate(fd, size_bytes); }
  int fsync(int fd) override { return below_.fsync(fd); }
  int close(int fd) override { return below_.close(fd); }
  int rename(const std::string& from, const std::string& to) override {
    return below_.rename(from, to);
  }
  int rename_no_replace(const std::string& from, const std::string& to) override {
    return below_.rename_no_replace(from, to);
  }
  int exchange(const std::string& a, const std::string& b) override {
    return below_.exchange(a, b);
  }
  int link(const std::string& from, const std::string& to) override {
    return below_.link(from, to);
  }
  int mkdir(const std::string& path, mode_t mode) override {
    install_stop_signal();
    return below_.mkdir(path, mode);
  }
  int unlink(const std::string& path) override { return below_.unlink(path); }
  int rmdir(const std::string& path) override { return below_.rmdir(path); }

 private:
  Io& below_ = posix_io();
};

}  // namespace

Io& interruptible_io() {
  static InterruptibleIo io;  // stateless
  return io;
}

}  // namespace dsmoe
