#pragma once

#include "common/io.h"

namespace dsmoe {

/// The path that means standard input where a text is read, and its name in messages.
constexpr const char* kStandardInput = "-";
constexpr const char* kStandardInputName = "standard input";

/// Opens a copy of standard input in a temporary file without a name, so that it can be read from
/// any place and again. The first call waits for the end of the input. Throws RunError if it cannot
/// be read or copied, StoppedError after a stop request.
int open_standard_input(Io& io);

}  // namespace dsmoe
