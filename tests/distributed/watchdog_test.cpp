#include "distributed/watchdog.h"

#include <atomic>
#include <catch2/catch.hpp>

namespace dsmoe {
namespace {

void sleep_seconds(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

}  // namespace

TEST_CASE("Watchdog: calls once for an operation past its limit", "[distributed]") {
  std::atomic<int> n_calls = 0;
  std::string what;
  double seconds = 0;
  {
    Watchdog watchdog(0.2, [&](const std::string& operation, double lasted) {
      what = operation;
      seconds = lasted;
      n_calls += 1;
    });
    watchdog.begin("adding the losses");
    sleep_seconds(1.0);
  }
  CHECK(n_calls == 1);
  CHECK(what == "adding the losses");
  CHECK(seconds >= 0.2);
}

TEST_CASE("Watchdog: time between operations does not count, nor many short ones",
          "[distributed]") {
  std::atomic<int> n_calls = 0;
  {
    Watchdog watchdog(0.5, [&](const std::string&, double) { n_calls += 1; });
    for (int i = 0; i < 12; ++i) {
      watchdog.begin("a short one");
      sleep_seconds(0.05);
      watchdog.end();
    }
    sleep_seconds(0.7);
  }
  CHECK(n_calls == 0);
}

}  // namespace dsmoe
