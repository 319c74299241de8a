#include "distributed/watchdog.h"

#include <utility>

namespace dsmoe {
namespace {

constexpr std::chrono::milliseconds kLookInterval{100};
// Time for the operation itself to read the stop flag, and to tell other ranks.
constexpr std::chrono::seconds kStopPatience{1};

}  // namespace

Watchdog::Watchdog(Handlers handlers, Now now)
    : handlers_(std::move(handlers)), now_(now), thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_closing_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

// Does not signal the thread: it reads the clock often enough for limits of seconds.
void Watchdog::begin(WatchedOperation operation) {
  const std::lock_guard<std::mutex> lock(mutex_);
  since_ = now_();
  operation_ = std::move(operation);
}

void Watchdog::end() {
  const std::lock_guard<std::mutex> lock(mutex_);
  operation_.reset();
}

// nullptr: none.
const Watchdog::Handler* Watchdog::due_handler(Clock::time_point now) {
  if (!stop_seen_ && handlers_.stop_requested && handlers_.stop_requested()) stop_seen_ = now;
  if (!operation_) return nullptr;
  if (now - since_ >= std::chrono::duration<double>(operation_->limit_seconds)) {
    return &handlers_.on_hang;
  }
  const bool is_cut_short =
      operation_->ends_on_stop && stop_seen_ && now - *stop_seen_ >= kStopPatience;
  return is_cut_short ? &handlers_.on_stop : nullptr;
}

void Watchdog::watch() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait_for(lock, kLookInterval, [this] { return is_closing_; });
    if (is_closing_) return;
    const auto now = now_();
    const auto* handler = due_handler(now);
    if (handler == nullptr || !*handler) continue;
    const auto what = operation_->what;
    const std::chrono::duration<double> lasted = now - since_;
    lock.unlock();
    (*handler)(what, lasted.count());
    return;
  }
}

}  // namespace dsmoe
