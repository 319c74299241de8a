#include "distributed/watchdog.h"

#include <atomic>
#include <catch2/catch.hpp>

namespace dsmoe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A clock that only a test advances. It counts how often it is read: by begin(), and once per check
// of the watchdog.
struct StillClock {
  static inline std::atomic<int64_t> nanoseconds{1};
  static inline std::atomic<int> n_reads{0};

  static Watchdog::Clock::time_point now() {
    n_reads += 1;
    return Watchdog::Clock::time_point(std::chrono::nanoseconds(nanoseconds.load()));
  }
  static void advance(std::chrono::nanoseconds by) { nanoseconds += by.count(); }
};

// Works on a machine of any load; the test's timeout bounds it.
template <class Condition>
void wait_until(const Condition& condition) {
  while (!condition()) std::this_thread::yield();
}

// Returns when the watchdog has checked the current state: the next check may have begun before.
void let_it_look() {
  const int n_reads = StillClock::n_reads;
  wait_until([&] { return StillClock::n_reads >= n_reads + 2; });
}

}  // namespace

TEST_CASE("Watchdog: calls once for an operation past its limit", "[distributed]") {
  std::atomic<int> n_calls = 0;
  std::string what;
  double lasted = 0;
  {
    Watchdog watchdog({.on_hang =
                           [&](const std::string& operation, double seconds) {
                             what = operation;
                             lasted = seconds;
                             n_calls += 1;
                           }},
                      &StillClock::now);
    watchdog.begin({.what = "adding the losses", .limit_seconds = 20});
    StillClock::advance(seconds(20) - milliseconds(1));
    let_it_look();
    CHECK(n_calls == 0);
    StillClock::advance(milliseconds(1));
    wait_until([&] { return n_calls > 0; });
    StillClock::advance(seconds(100));
  }
  CHECK(n_calls == 1);
  CHECK(what == "adding the losses");
  CHECK(lasted == Approx(20));
}

TEST_CASE("Watchdog: time between operations does not count, nor many short ones",
          "[distributed]") {
  std::atomic<int> n_calls = 0;
  Watchdog watchdog({.on_hang = [&](const std::string&, double) { n_calls += 1; }},
                    &StillClock::now);
  for (int i = 0; i < 3; ++i) {
    watchdog.begin({.what = "a short one", .limit_seconds = 30});
    StillClock::advance(seconds(29));
    let_it_look();
    watchdog.end();
    StillClock::advance(seconds(100));
    let_it_look();
  }
  CHECK(n_calls == 0);
}

TEST_CASE("Watchdog: a stop cuts short only operations that lose nothing", "[distributed]") {
  std::atomic<bool> stop = false;
  std::atomic<int> n_stops = 0, n_hangs = 0;
  std::string what;
  Watchdog watchdog({.on_hang = [&](const std::string&, double) { n_hangs += 1; },
                     .stop_requested = [&] { return stop.load(); },
                     .on_stop =
                         [&](const std::string& operation, double) {
                           what = operation;
                           n_stops += 1;
                         }},
                    &StillClock::now);
  watchdog.begin({.what = "a step", .limit_seconds = 600});
  stop = true;
  let_it_look();
  StillClock::advance(milliseconds(999));
  watchdog.end();
  watchdog.begin({.what = "waiting for the others", .limit_seconds = 600, .ends_on_stop = true});
  let_it_look();
  CHECK(n_stops == 0);
  watchdog.end();
  watchdog.begin({.what = "a step", .limit_seconds = 600});
  StillClock::advance(seconds(5));  // longer than the second it leaves an operation
  let_it_look();
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
