#pragma once

#include <stdexcept>

namespace dsmoe {

/// Ends work because a stop was asked for. The program exits with 75.
class StoppedError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// From now on the first SIGINT or SIGTERM only asks for a stop, so that the work at hand can be
/// finished and saved; a second one ends the process at once.
void install_stop_signal();

/// True once a stop was asked for.
bool stop_requested();

/// From now on SIGUSR1 asks for a profiler trace.
void install_trace_signal();

/// True once per request.
bool take_trace_request();

}  // namespace dsmoe
