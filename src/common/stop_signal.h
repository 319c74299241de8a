#pragma once

#include <stdexcept>

namespace dsmoe {

/// Ends work after a stop request. The program exits with 75.
class StoppedError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// After this call the first SIGINT, SIGTERM or SIGHUP only sets the stop flag, so that current
/// work can be finished and saved; a second SIGINT or SIGTERM ends the process at once. A second
/// SIGHUP does nothing: a closing terminal sends several. An ignored SIGHUP stays ignored (nohup).
void install_stop_signal();

/// After this call these signals end the process again.
void uninstall_stop_signal();

/// Returns the stop flag.
bool stop_requested();

/// After this call SIGUSR1 requests a profiler trace.
void install_trace_signal();

/// Returns true once per request.
bool take_trace_request();

/// Blocks SIGINT, SIGTERM, SIGHUP and SIGUSR1: one that arrives stays pending, through exec too,
/// until release_signals. Safe before `main` and between fork and exec.
void hold_signals();

/// Delivers the signals that hold_signals blocked in this process or its parent.
void release_signals();

}  // namespace dsmoe
