#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace dsmoe {

/// Permissions of new files and directories before the umask, as for every other tool.
constexpr mode_t kFileMode = 0666;
constexpr mode_t kDirectoryMode = 0777;

/// Every write, rename and fsync of the program goes through this interface, so that tests can make
/// the n-th one fail, crash or be forgotten. The calls are those of POSIX: on failure they return
/// -1 and set errno.
class Io {
 public:
  virtual ~Io() = default;
  virtual int open(const std::string& path, int flags, mode_t mode) = 0;
  virtual ssize_t write(int fd, const void* data, size_t size_bytes) = 0;
  virtual ssize_t pread(int fd, void* data, size_t size_bytes, off_t offset) = 0;
  virtual int ftruncate(int fd, off_t size_bytes) = 0;
  virtual int fsync(int fd) = 0;
  virtual int close(int fd) = 0;
  virtual int rename(const std::string& from, const std::string& to) = 0;
  /// Renames, or fails with EEXIST where `to` exists; EINVAL or ENOSYS where the file system lacks
  /// the call.
  virtual int rename_no_replace(const std::string& from, const std::string& to) = 0;
  /// Swaps two names in one step; EINVAL or ENOSYS where the file system lacks the call.
  virtual int exchange(const std::string& a, const std::string& b) = 0;
  virtual int link(const std::string& from, const std::string& to) = 0;
  virtual int mkdir(const std::string& path, mode_t mode) = 0;
  virtual int unlink(const std::string& path) = 0;
  virtual int rmdir(const std::string& path) = 0;
};

/// The operating system's own calls; stateless.
Io& posix_io();

/// Reads a whole file. Throws Error if it is missing, not a regular file, or above max_size_bytes.
std::string read_file(Io& io, const std::string& path, uint64_t max_size_bytes);

/// Writes all bytes of one open file; repeats after short writes and EINTR. Throws RunError that
/// names the path and the system's reason.
void write_all(Io& io, int fd, const void* data, size_t size_bytes, const std::string& path);

/// Reads bytes [offset, offset + size_bytes) of an open file; repeats after short reads and EINTR.
/// Throws Error if the file ends early or cannot be read.
void read_all(Io& io,
              int fd,
              void* data,
              size_t size_bytes,
              uint64_t offset,
              const std::string& path);

/// Creates or truncates a file, writes it, fsyncs and closes it. A failed write loses an earlier
/// file of that name: use it only inside a directory that this process makes (staged_output.h).
/// Throws RunError.
void write_file(Io& io, const std::string& path, std::string_view bytes);

/// Renames within a directory or across two, and makes the new name durable. Throws RunError.
void rename_durably(Io& io, const std::string& from, const std::string& to);

/// Makes a directory completely or not at all: `fill` writes its files, fsynced, at `temporary`;
/// the directory is then fsynced and renamed to `path`, and its name made durable. Removes an
/// earlier directory at `temporary` first, and its own after a failure: only for directories that
/// the caller owns under a lock, such as a run's checkpoints. All others use
/// write_output_directory. Throws RunError and the exceptions of `fill`.
void write_directory(Io& io,
                     const std::string& temporary,
                     const std::string& path,
                     const std::function<void()>& fill);

/// Makes the names in a directory durable. Throws RunError.
void fsync_directory(Io& io, const std::string& path);

/// Creates a directory and its parents where missing, durably. Throws RunError.
void make_directories(Io& io, const std::string& path);

/// Removes a directory and its content; does nothing if it is missing. Throws RunError.
void remove_tree(Io& io, const std::string& path);

}  // namespace dsmoe
