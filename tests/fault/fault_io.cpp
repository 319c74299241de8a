#include "fault/fault_io.h"

#include <signal.h>

#include <algorithm>
#include <cstring>

namespace dsmoe {
namespace {

bool is_read(Operation operation) {
  return operation == Operation::kPread || operation == Operation::kOpen ||
         operation == Operation::kClose;
}

}  // namespace

const char* operation_name(Operation operation) {
  constexpr const char* kNames[] = {"open",
                                    "write",
                                    "pread",
                                    "ftruncate",
                                    "fsync",
                                    "close",
                                    "rename",
                                    "rename without replacing",
                                    "exchange",
                                    "link",
                                    "mkdir",
                                    "unlink",
                                    "rmdir"};
  return kNames[static_cast<size_t>(operation)];
}

FaultIo::Course FaultIo::next_course(Operation operation) {
  const std::lock_guard lock(mutex_);
  errno = fault_.error;
  if (is_dead_) return Course::kFail;
  operations_.push_back(operation);
  const auto number = static_cast<int64_t>(operations_.size());
  const bool is_due = fault_.at > 0 && number == fault_.at;
  const bool is_past = fault_.at > 0 && number > fault_.at;
  has_struck_ = has_struck_ || is_due;
  switch (fault_.kind) {
    case Fault::Kind::kNone:
      return Course::kGo;
    case Fault::Kind::kFailOnce:
      return is_due ? Course::kFail : Course::kGo;
    case Fault::Kind::kFailFromNowOn:
      return is_due || (is_past && !is_read(operation)) ? Course::kFail : Course::kGo;
    case Fault::Kind::kShort:
      return is_due || is_past ? Course::kShort : Course::kGo;
    case Fault::Kind::kFlipBit:
      return is_due ? Course::kFlip : Course::kGo;
    case Fault::Kind::kCrash:
    case Fault::Kind::kCrashTorn:
      if (!is_due) return Course::kGo;
      is_dead_ = true;
      if (fault_.kind == Fault::Kind::kCrashTorn && operation == Operation::kWrite) {
        return Course::kTear;
      }
      throw ProcessDeath();
    case Fault::Kind::kKill:
      if (is_due) raise(SIGKILL);
      return Course::kGo;
  }
  return Course::kGo;
}

int64_t FaultIo::call(Operation operation, const std::function<int64_t()>& real) {
  return next_course(operation) == Course::kFail ? -1 : real();
}

int FaultIo::open(const std::string& path, int flags, mode_t mode) {
  return static_cast<int>(call(Operation::kOpen, [&] { return below_.open(path, flags, mode); }));
}

ssize_t FaultIo::write(int fd, const void* data, size_t size_bytes) {
  switch (next_course(Operation::kWrite)) {
    case Course::kFail:
      return -1;
    case Course::kShort:
      return below_.write(fd, data, std::max<size_t>(size_bytes, 2) - 1);
    case Course::kFlip: {
      std::string altered(static_cast<const char*>(data), size_bytes);
      altered[size_bytes / 2] = static_cast<char>(altered[size_bytes / 2] ^ 1);
      return below_.write(fd, altered.data(), size_bytes);
    }
    case Course::kTear:
      below_.write(fd, data, size_bytes / 2);
      throw ProcessDeath();
    case Course::kGo:
      break;
  }
  return below_.write(fd, data, size_bytes);
}

ssize_t FaultIo::pread(int fd, void* data, size_t size_bytes, off_t offset) {
  const auto course = next_course(Operation::kPread);
  if (course == Course::kFail) return -1;
  const bool is_short = course == Course::kShort && size_bytes > 1;
  return below_.pread(fd, data, is_short ? size_bytes - 1 : size_bytes, offset);
}

int FaultIo::ftruncate(int fd, off_t size_bytes) {
  return static_cast<int>(
      call(Operation::kTruncate, [&] { return below_.ftruncate(fd, size_bytes); }));
}

int FaultIo::fsync(int fd) {
  return static_cast<int>(call(Operation::kFsync, [&] { return below_.fsync(fd); }));
}

// The descriptor is released even if close fails, in the kernel and here; destructors of a dead
// process leave none behind either, and may not throw.
int FaultIo::close(int fd) {
  bool fails = false;
  try {
    fails = next_course(Operation::kClose) == Course::kFail;
  } catch (const ProcessDeath&) {
    fails = true;
  }
  const int error = errno;
  const int result = below_.close(fd);
  errno = fails ? error : errno;
  return fails ? -1 : result;
}

int FaultIo::rename(const std::string& from, const std::string& to) {
  return static_cast<int>(call(Operation::kRename, [&] { return below_.rename(from, to); }));
}

int FaultIo::rename_no_replace(const std::string& from, const std::string& to) {
  return static_cast<int>(
      call(Operation::kRenameNoReplace, [&] { return below_.rename_no_replace(from, to); }));
}

int FaultIo::exchange(const std::string& a, const std::string& b) {
  return static_cast<int>(call(Operation::kExchange, [&] { return below_.exchange(a, b); }));
}

int FaultIo::link(const std::string& from, const std::string& to) {
  return static_cast<int>(call(Operation::kLink, [&] { return below_.link(from, to); }));
}

int FaultIo::mkdir(const std::string& path, mode_t mode) {
  return static_cast<int>(call(Operation::kMkdir, [&] { return below_.mkdir(path, mode); }));
}

int FaultIo::unlink(const std::string& path) {
  return static_cast<int>(call(Operation::kUnlink, [&] { return below_.unlink(path); }));
}

int FaultIo::rmdir(const std::string& path) {
  return static_cast<int>(call(Operation::kRmdir, [&] { return below_.rmdir(path); }));
}

std::vector<Operation> FaultIo::operations() const {
  const std::lock_guard lock(mutex_);
  return operations_;
}

bool FaultIo::has_struck() const {
  const std::lock_guard lock(mutex_);
  return has_struck_;
}

}  // namespace dsmoe
