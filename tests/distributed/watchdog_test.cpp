#include "distributed/watchdog.h"

#include <atomic>
#include <catch2/catch.hpp>

namespace dsmoe {
namespace {

void sleep_seconds(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// A fact of the code, whenever it comes about; the test's own time-out bounds it.
template <class Condition>
void wait_until(const Condition& condition) {
  while (!condition()) sleep_seconds(0.01);
}

}  // namespace

TEST_CASE("Watchdog: calls once for an operation past its limit", "[distributed]") {
  std::atomic<int> n_calls = 0;
  std::string what;
  double seconds = 0;
  {
    Watchdog watchdog({.on_hang = [&](const std::string& operation, double lasted) {
      what = operation;
      seconds = lasted;
      n_calls += 1;
    }});
    watchdog.begin({.what = "adding the losses", .limit_seconds = 0.2});
    wait_until([&] { return n_calls > 0; });
    sleep_seconds(0.5);
  }
  CHECK(n_calls == 1);
  CHECK(what == "adding the losses");
  CHECK(seconds >= 0.2);
}

TEST_CASE("Watchdog: time between operations does not count, nor many short ones",
          "[distributed]") {
  std::atomic<int> n_calls = 0;
  {
    Watchdog watchdog({.on_hang = [&](const std::string&, double) { n_calls += 1; }});
    for (int i = 0; i < 12; ++i) {
      watchdog.begin({.what = "a short one", .limit_seconds = 30});
      sleep_seconds(0.05);
      watchdog.end();
      sleep_seconds(0.35);
    }
    watchdog.begin({.what = "one with no time at all", .limit_seconds = 30});
    watchdog.end();
    sleep_seconds(0.7);
  }
  CHECK(n_calls == 0);
}

TEST_CASE("Watchdog: a stop cuts short what loses nothing by it, and only that", "[distributed]") {
  std::atomic<bool> stop = false;
  std::atomic<int> n_stops = 0, n_hangs = 0;
  std::string what;
  Watchdog watchdog({.on_hang = [&](const std::string&, double) { n_hangs += 1; },
                     .stop_requested = [&] { return stop.load(); },
                     .on_stop =
                         [&](const std::string& operation, double) {
                           what = operation;
                           n_stops += 1;
                         }});
  watchdog.begin({.what = "a step", .limit_seconds = 600});
  stop = true;
  sleep_seconds(1.5);  // longer than the second it leaves an operation
  CHECK(n_stops == 0);
  watchdog.end();
  watchdog.begin({.what = "waiting for the others", .limit_seconds = 600, .ends_on_stop = true});
  wait_until([&] { return n_stops > 0; });
  watchdog.end();
  CHECK(n_stops == 1);
  CHECK(n_hangs == 0);
  CHECK(what == "waiting for the others");
}

}  // namespace dsmoe
