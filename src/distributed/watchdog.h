#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace dsmoe {

/// The last resort against a collective that ignores its own timeout: a thread that calls
/// `on_hang`, once, when an operation lasts longer than the limit.
class Watchdog {
 public:
  using OnHang = std::function<void(const std::string& what, double seconds)>;

  Watchdog(double limit_seconds, OnHang on_hang);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void begin(std::string what);
  void end();

 private:
  using Clock = std::chrono::steady_clock;

  void watch();

  std::chrono::duration<double> limit_;
  OnHang on_hang_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_closing_ = false;
  bool is_busy_ = false;
  Clock::time_point since_;
  std::string what_;
  std::thread thread_;
};

}  // namespace dsmoe
