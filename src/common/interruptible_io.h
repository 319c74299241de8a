#pragma once

#include "common/io.h"

namespace dsmoe {

/// Operating-system calls for a command that keeps no unfinished output. Catches stop signals from
/// the first file or directory that it makes: the next write then throws StoppedError, and the
/// caller removes the output. Before that a signal ends the process, which has nothing to remove.
/// Stateless.
Io& interruptible_io();

}  // namespace dsmoe
