#pragma once

#include <string>

#include "common/io.h"

namespace dsmoe {

/// Locks a run directory against other processes during its lifetime.
class RunLock {
 public:
  /// Throws Error naming the process that holds `RUN/run.lock`.
  RunLock(Io& io, const std::string& run_directory);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  Io& io_;
  int fd_;
};

/// Throws Error as RunLock does if another process holds the lock; changes nothing.
void check_not_locked(Io& io, const std::string& run_directory);

}  // namespace dsmoe
