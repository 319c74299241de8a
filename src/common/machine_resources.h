#pragma once

#include <cstdint>
#include <string>

namespace dsmoe {

/// Returns the memory of this machine, or the limit of this process's control group if that is
/// lower; bytes, 0 if the system does not report it.
int64_t machine_memory_bytes();

/// Returns the part of it that programs can still take without swapping; 0 if not reported.
int64_t available_memory_bytes();

/// Returns the bytes that this user can still write to the file system of `path`, or of its nearest
/// directory that exists; 0 if not reported.
int64_t free_disk_bytes(const std::string& path);

}  // namespace dsmoe
