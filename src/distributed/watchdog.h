#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace dsmoe {

/// An operation that may block in library code without a timeout, or beyond it.
struct WatchedOperation {
  std::string what;
  double limit_seconds = 0;
  bool ends_on_stop = false;  ///< a stop may cut it short without loss
};

/// Bounds operations without a timeout: a thread calls a handler, once, when an operation exceeds
/// its limit or has not ended a second after a stop request.
class Watchdog {
 public:
  using Handler = std::function<void(const std::string& what, double seconds)>;

  struct Handlers {
    Handler on_hang;
    std::function<bool()> stop_requested = {};  ///< polled; empty: no stops
    Handler on_stop = {};
  };

  using Clock = std::chrono::steady_clock;
  using Now = Clock::time_point (*)();

  /// A test passes a clock that it advances itself.
  explicit Watchdog(Handlers handlers, Now now = &Clock::now);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void begin(WatchedOperation operation);
  void end();

 private:
  void watch();
  const Handler* due_handler(Clock::time_point now);

  Handlers handlers_;
  const Now now_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_closing_ = false;
  std::optional<WatchedOperation> operation_;
  Clock::time_point since_;
  std::optional<Clock::time_point> stop_seen_;
  std::thread thread_;
};

}  // namespace dsmoe
