#include "common/stop_signal.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace dsmoe {
namespace {

// A signal handler can only access globals.
std::atomic<bool> stop_flag{false};
std::atomic<bool> trace_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free);

constexpr int kStopSignals[] = {SIGINT, SIGTERM, SIGHUP};

void on_signal(int signal_number) {
  const bool is_second = stop_flag.exchange(true);
  if (is_second && signal_number != SIGHUP) _exit(128 + signal_number);
}

void on_trace_signal(int) { trace_flag = true; }

void set_handler(int signal_number, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(signal_number, &action, nullptr);
}

void set_stop_handler(void (*handler)(int)) {
  for (const int signal_number : kStopSignals) {
    struct sigaction before = {};
    sigaction(signal_number, nullptr, &before);
    if (signal_number == SIGHUP && before.sa_handler == SIG_IGN) continue;
    set_handler(signal_number, handler);
  }
}

void change_mask(int how) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal_number : kStopSignals) sigaddset(&signals, signal_number);
  sigaddset(&signals, SIGUSR1);
  sigprocmask(how, &signals, nullptr);
}

}  // namespace

void install_stop_signal() { set_stop_handler(on_signal); }

void uninstall_stop_signal() { set_stop_handler(SIG_DFL); }

bool stop_requested() { return stop_flag.load(std::memory_order_relaxed); }

void install_trace_signal() { set_handler(SIGUSR1, on_trace_signal); }

bool take_trace_request() { return trace_flag.exchange(false); }

void hold_signals() { change_mask(SIG_BLOCK); }

void release_signals() { change_mask(SIG_UNBLOCK); }

}  // namespace dsmoe
