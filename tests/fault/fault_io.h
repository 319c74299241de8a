#pragma once

#include <cerrno>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "common/io.h"

namespace dsmoe {

enum class Operation {
  kOpen,
  kWrite,
  kPread,
  kTruncate,
  kFsync,
  kClose,
  kRename,
  kRenameNoReplace,
  kExchange,
  kLink,
  kMkdir,
  kUnlink,
  kRmdir
};
const char* operation_name(Operation operation);

/// The fault at one operation of an Io.
struct Fault {
  enum class Kind {
    kNone,           ///< only count
    kFailOnce,       ///< it returns -1 with `error`
    kFailFromNowOn,  ///< it and all later changing operations return -1 with `error`
    kShort,          ///< from it on, reads and writes move one byte less than asked, if more than 1
    kFlipBit,        ///< a write changes one bit of its data
    kCrash,          ///< the process ends before it: ProcessDeath is thrown, nothing happens later
    kCrashTorn,      ///< the same, after half of a write
    kKill            ///< SIGKILL to the real process before it
  };
  Kind kind = Kind::kNone;
  int64_t at = 0;  ///< the operation, counted from 1
  int error = EIO;
};

/// The end of a process, as tests see it. Not a std::exception, so that nothing handles it.
struct ProcessDeath {};

/// Passes operations on and makes one of them, chosen by its number, fail. May be used by several
/// threads; the count is over all of them.
class FaultIo final : public Io {
 public:
  explicit FaultIo(Fault fault, Io& below = posix_io()) : fault_(fault), below_(below) {}

  int open(const std::string& path, int flags, mode_t mode) override;
  ssize_t write(int fd, const void* data, size_t size_bytes) override;
  ssize_t pread(int fd, void* data, size_t size_bytes, off_t offset) override;
  int ftruncate(int fd, off_t size_bytes) override;
  int fsync(int fd) override;
  int close(int fd) override;
  int rename(const std::string& from, const std::string& to) override;
  int rename_no_replace(const std::string& from, const std::string& to) override;
  int exchange(const std::string& a, const std::string& b) override;
  int link(const std::string& from, const std::string& to) override;
  int mkdir(const std::string& path, mode_t mode) override;
  int unlink(const std::string& path) override;
  int rmdir(const std::string& path) override;

  /// Every operation so far, in order; its size is the number to count up to.
  std::vector<Operation> operations() const;
  /// Returns whether the fault happened.
  bool has_struck() const;

 private:
  enum class Course { kGo, kFail, kShort, kFlip, kTear };
  Course next_course(Operation operation);
  int64_t call(Operation operation, const std::function<int64_t()>& real);

  const Fault fault_;
  Io& below_;
  mutable std::mutex mutex_;  // guards the members below
  std::vector<Operation> operations_;
  bool has_struck_ = false;
  bool is_dead_ = false;
};

}  // namespace dsmoe
