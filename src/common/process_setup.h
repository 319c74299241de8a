#pragma once

#include <cstdint>

namespace dsmoe {

/// To be called first in `main`, before a thread starts: keeps large freed blocks inside the
/// process instead of handing them back to the kernel every step; makes a file-size limit and a
/// reader that has gone (SIGPIPE) errors of the write instead of a kill; and takes the places of
/// standard streams that were closed at the start, so that no file opened later takes theirs.
void setup_process();

/// Restarts the program once with passive OpenMP waiting, unless the environment says how to wait:
/// spinning threads on a shared machine cost more than the work, and the OpenMP library reads the
/// setting when it is loaded, before `main`. Returns if there is nothing to do.
void restart_with_passive_waiting(char** argv);

/// Greatest resident memory of this process so far.
int64_t peak_memory_bytes();

/// Processor time that all threads of this process have used.
double cpu_seconds();

/// Resident memory of this process now; 0 where the system does not say.
int64_t resident_memory_bytes();

}  // namespace dsmoe
