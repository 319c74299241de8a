#pragma once

#include "common/io.h"

namespace dsmoe {

/// The operating system's calls for a command that makes an output and keeps nothing when it is
/// stopped. From the first file or directory it makes on, a stop signal is caught, and the next
/// write throws StoppedError, so that the unfinished output is removed on the way out.
/// Before that a signal ends the process, which has nothing to remove. Stateless.
Io& interruptible_io();

}  // namespace dsmoe
