#include "distributed/watchdog.h"

#include <algorithm>
#include <utility>

namespace dsmoe {
namespace {

constexpr std::chrono::duration<double> kLongestLook{0.25};

}  // namespace

Watchdog::Watchdog(double limit_seconds, OnHang on_hang)
    : limit_(limit_seconds), on_hang_(std::move(on_hang)), thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_closing_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

// No signal to the thread here: it looks at the clock often enough for limits of seconds.
void Watchdog::begin(std::string what) {
  const std::lock_guard<std::mutex> lock(mutex_);
  is_busy_ = true;
  since_ = Clock::now();
  what_ = std::move(what);
}

void Watchdog::end() {
  const std::lock_guard<std::mutex> lock(mutex_);
  is_busy_ = false;
}

void Watchdog::watch() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!is_closing_) {
    changed_.wait_for(lock, std::min(limit_ / 10, kLongestLook), [this] { return is_closing_; });
    const std::chrono::duration<double> lasted = Clock::now() - since_;
    if (!is_busy_ || is_closing_ || lasted < limit_) continue;
    const auto what = what_;
    lock.unlock();
    on_hang_(what, lasted.count());
    return;
  }
}

}  // namespace dsmoe
