#include "common/thread_pool.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

namespace dsmoe {
namespace {

// Counts how often each item was done.
std::vector<int> counts_of_run(ThreadPool& pool, int64_t n_items) {
  std::vector<std::atomic<int>> counts(static_cast<size_t>(n_items));
  pool.run(n_items, [&](int64_t item, int) { counts[static_cast<size_t>(item)] += 1; });
  return {counts.begin(), counts.end()};
}

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Waits for another thread on a machine of any load; false after two minutes.
bool wait_until(const std::function<bool()>& is_true) {
  const auto end = steady_clock::now() + std::chrono::minutes(2);
  while (!is_true()) {
    if (steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

// Begins one item on each of two threads; false if the pool gave both to one.
bool wait_for_both(std::atomic<int>& n_begun) {
  n_begun += 1;
  return wait_until([&] { return n_begun == 2; });
}

// A pool's clock that only a test advances. It counts how often it is read.
struct StillClock {
  static inline std::atomic<int64_t> nanoseconds{1};
  static inline std::atomic<int> n_reads{0};

  static steady_clock::time_point now() {
    n_reads += 1;
    return steady_clock::time_point(std::chrono::nanoseconds(nanoseconds.load()));
  }
  static void advance(std::chrono::nanoseconds by) { nanoseconds += by.count(); }
};

// Runs a region of two items; the worker's item takes `late` longer than the caller's. The pool
// reads its clock before a region, where it begins, and when the caller's items are done.
bool run_late(ThreadPool& pool, std::chrono::nanoseconds late) {
  std::atomic<int> n_begun{0};
  std::atomic<bool> both_began{true};
  const int n_reads = StillClock::n_reads;
  pool.run(2, [&](int64_t, int thread) {
    both_began = wait_for_both(n_begun) && both_began;
    if (thread == 0) return;
    both_began = wait_until([&] { return StillClock::n_reads == n_reads + 3; }) && both_began;
    StillClock::advance(late);
  });
  return both_began;
}

bool runs_alone(ThreadPool& pool) {
  std::atomic<bool> is_caller_only{true};
  const int n_reads = StillClock::n_reads;
  pool.run(64, [&](int64_t, int thread) {
    if (thread != 0) is_caller_only = false;
  });
  // The clock is not read for the region's length.
  return is_caller_only && StillClock::n_reads == n_reads + 1;
}

bool runs_together(ThreadPool& pool) {
  std::atomic<int> n_begun{0};
  std::atomic<bool> both_began{true};
  pool.run(2, [&](int64_t, int) { both_began = wait_for_both(n_begun) && both_began; });
  return both_began;
}

}  // namespace

TEST_CASE("ThreadPool: does every item once, region after region", "[common][thread_pool]") {
  for (const int n_threads : {1, 2, 5}) {
    ThreadPool pool(n_threads);
    CHECK(pool.n_threads() == n_threads);
    for (int64_t n_items = 0; n_items < 300; ++n_items) {
      INFO(n_threads << " threads, " << n_items << " items");
      REQUIRE(counts_of_run(pool, n_items) == std::vector<int>(static_cast<size_t>(n_items), 1));
    }
  }
}

TEST_CASE("ThreadPool: results of a region are visible after it", "[common][thread_pool]") {
  ThreadPool pool(3);
  std::vector<int64_t> values(64);
  for (int64_t region = 1; region <= 2000; ++region) {
    pool.run(64, [&](int64_t item, int) { values[static_cast<size_t>(item)] = region * item; });
    for (int64_t item = 0; item < 64; ++item)
      REQUIRE(values[static_cast<size_t>(item)] == region * item);
  }
}

TEST_CASE("ThreadPool: sleeping workers take part in the next region", "[common][thread_pool]") {
  ThreadPool pool(3, &StillClock::now);
  for (int round = 0; round < 3; ++round) {
    REQUIRE(wait_until([&] { return pool.n_asleep() == 2; }));
    CHECK(runs_together(pool));
  }
}

TEST_CASE(
    "ThreadPool: after a late worker the caller works alone for a while, then with the others",
    "[common][thread_pool]") {
  ThreadPool pool(2, &StillClock::now);
  // The caller's items took no time at all.
  REQUIRE(run_late(pool, std::chrono::microseconds(200)));
  CHECK(runs_together(pool));
  REQUIRE(run_late(pool, std::chrono::microseconds(201)));
  CHECK(runs_alone(pool));
  StillClock::advance(milliseconds(4) - std::chrono::nanoseconds(1));
  CHECK(runs_alone(pool));
  StillClock::advance(std::chrono::nanoseconds(1));
  CHECK(runs_together(pool));
}

TEST_CASE("ThreadPool: a worker that is late again soon is left out longer, up to 256 ms",
          "[common][thread_pool]") {
  ThreadPool pool(2, &StillClock::now);
  const auto alone_after_lateness = [&] {
    if (!run_late(pool, milliseconds(1))) return milliseconds(-1);
    auto serial_time = milliseconds(0);
    while (runs_alone(pool)) {
      StillClock::advance(milliseconds(1));
      serial_time += milliseconds(1);
    }
    return serial_time;
  };
  for (const int expected : {4, 8, 16, 32, 64, 128, 256, 256}) {
    CHECK(alone_after_lateness() == milliseconds(expected));
  }
  StillClock::advance(milliseconds(4 * 256));
  CHECK(alone_after_lateness() == milliseconds(4));
}

TEST_CASE("ThreadPool: a region ends when its slowest item ends", "[common][thread_pool]") {
  ThreadPool pool(2, &StillClock::now);
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> n_begun{0};
    std::atomic<int> n_done{0};
    std::atomic<bool> both_began{true};
    const int n_reads = StillClock::n_reads;
    // One on each thread: the caller has done its own when the worker ends.
    pool.run(2, [&](int64_t, int thread) {
      both_began = wait_for_both(n_begun) && both_began;
      if (thread != 0) {
        both_began = wait_until([&] { return StillClock::n_reads == n_reads + 3; }) && both_began;
        for (int i = 0; i < 1000; ++i) std::this_thread::yield();
      }
      n_done += 1;
    });
    CHECK(n_done == 2);
    CHECK(both_began);
  }
}

TEST_CASE("ThreadPool: a region does not wait for workers that took no item",
          "[common][thread_pool]") {
  // More threads than this machine will run at once, all of them new: regions end all the same.
  ThreadPool pool(64);
  std::atomic<int64_t> sum{0};
  for (int region = 0; region < 200; ++region) pool.run(4, [&](int64_t item, int) { sum += item; });
  CHECK(sum == 200 * 6);
}

TEST_CASE("ThreadPool: regions inside a region and beside a region run on their callers",
          "[common][thread_pool]") {
  ThreadPool pool(2);
  std::atomic<int> inner{0};
  std::atomic<bool> inner_threads_are_zero{true};
  pool.run(8, [&](int64_t, int) {
    pool.run(5, [&](int64_t, int thread) {
      inner += 1;
      if (thread != 0) inner_threads_are_zero = false;
    });
  });
  CHECK(inner == 40);
  CHECK(inner_threads_are_zero);

  std::atomic<int64_t> total{0};
  const auto caller = [&] {
    for (int i = 0; i < 500; ++i) pool.run(10, [&](int64_t item, int) { total += item; });
  };
  std::thread other(caller);
  caller();
  other.join();
  CHECK(total == 2 * 500 * 45);
}

TEST_CASE("ThreadPool: the process's pool can be replaced", "[common][thread_pool]") {
  const int before = kernel_threads().n_threads();
  set_kernel_threads(3);
  CHECK(kernel_threads().n_threads() == 3);
  set_kernel_threads(before);
  CHECK(kernel_threads().n_threads() == before);
}

}  // namespace dsmoe
