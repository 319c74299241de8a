#pragma once

#include <cstdint>
#include <string>

namespace dsmoe {

/// Call first in `main`, before a thread starts. Keeps large freed blocks inside the process
/// instead of returning them to the kernel every step. Makes a file-size limit and a closed reader
/// (SIGPIPE) errors of the write instead of ending the process. Occupies the standard streams that
/// were closed at the start, so that no file opened later takes their numbers.
void setup_process();

/// Sets passive OpenMP waiting, unless the environment sets a wait policy: spinning threads on a
/// shared machine cost more than the work. Call before the OpenMP library is loaded, since it reads
/// the setting then.
void use_passive_waiting();

/// Returns the directory of the program's file.
std::string program_directory();

/// Returns the peak resident memory of this process.
int64_t peak_memory_bytes();

/// Returns the processor time of all threads of this process.
double cpu_seconds();

/// Returns the current resident memory of this process; 0 if the system does not report it.
int64_t resident_memory_bytes();

}  // namespace dsmoe
