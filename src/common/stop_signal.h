#pragma once

#include <stdexcept>

namespace dsmoe {

/// Ends work because a stop was asked for. The program exits with 75.
class StoppedError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// From now on the first SIGINT, SIGTERM or SIGHUP only asks for a stop, so that the work at hand
/// can be finished and saved; a second SIGINT or SIGTERM ends the process at once. A second SIGHUP
/// does nothing: a closing terminal sends several. SIGHUP stays ignored where it is ignored
/// (nohup).
void install_stop_signal();

/// From now on these signals end the process again.
void uninstall_stop_signal();

/// True once a stop was asked for.
bool stop_requested();

/// From now on SIGUSR1 asks for a profiler trace.
void install_trace_signal();

/// True once per request.
bool take_trace_request();

/// Blocks SIGINT, SIGTERM, SIGHUP and SIGUSR1: one that arrives stays pending, through exec too,
/// until release_signals. Safe before `main` and between fork and exec.
void hold_signals();

/// Delivers the signals that hold_signals, of this process or of the one that started it, blocked.
void release_signals();

}  // namespace dsmoe
