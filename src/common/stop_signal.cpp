#include "common/stop_signal.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace dsmoe {
namespace {

// A signal handler can reach nothing but a global.
std::atomic<bool> stop_flag{false};
std::atomic<bool> trace_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_signal(int signal_number) {
  if (stop_flag.exchange(true)) _exit(128 + signal_number);
}

void on_trace_signal(int) { trace_flag = true; }

}  // namespace

void install_stop_signal() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void install_trace_signal() {
  struct sigaction action = {};
  action.sa_handler = on_trace_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);
}

bool take_trace_request() { return trace_flag.exchange(false); }

bool stop_requested() { return stop_flag.load(std::memory_order_relaxed); }

}  // namespace dsmoe
