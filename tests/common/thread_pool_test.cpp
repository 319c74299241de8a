#include "common/thread_pool.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <thread>
#include <vector>

namespace dsmoe {
namespace {

// How often each item was done.
std::vector<int> counts_of_run(ThreadPool& pool, int64_t n_items) {
  std::vector<std::atomic<int>> counts(static_cast<size_t>(n_items));
  pool.run(n_items, [&](int64_t item, int) { counts[static_cast<size_t>(item)] += 1; });
  return {counts.begin(), counts.end()};
}

using Clock = std::chrono::steady_clock;

// Begins one item on each of two threads; false if the pool left both to one.
bool meet(std::atomic<int>& n_begun) {
  n_begun += 1;
  const auto end = Clock::now() + std::chrono::milliseconds(100);
  while (n_begun < 2 && Clock::now() < end) std::this_thread::yield();
  return n_begun == 2;
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

TEST_CASE("ThreadPool: results of a region are seen after it", "[common][thread_pool]") {
  ThreadPool pool(3);
  std::vector<int64_t> values(64);
  for (int64_t region = 1; region <= 2000; ++region) {
    pool.run(64, [&](int64_t item, int) { values[static_cast<size_t>(item)] = region * item; });
    for (int64_t item = 0; item < 64; ++item)
      REQUIRE(values[static_cast<size_t>(item)] == region * item);
  }
}

TEST_CASE("ThreadPool: workers that went to sleep take part again", "[common][thread_pool]") {
  ThreadPool pool(2);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    std::atomic<int> n_begun{0};
    std::atomic<bool> met{true};
    pool.run(2, [&](int64_t, int) { met = meet(n_begun) && met; });
    CHECK(met);
  }
}

TEST_CASE("ThreadPool: after a late worker the caller goes on alone for a while, then together",
          "[common][thread_pool]") {
  ThreadPool pool(2);
  int n_alone = 0;
  for (int round = 0; round < 6; ++round) {
    std::atomic<int> n_begun{0};
    std::atomic<bool> was_late{false};
    Clock::time_point late_end;
    const auto start = Clock::now();
    pool.run(2, [&](int64_t, int thread) {
      // Late is what takes much longer than the caller's own item.
      const bool quick = meet(n_begun) && Clock::now() - start < std::chrono::milliseconds(5);
      if (thread == 0) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      was_late = quick;
      late_end = Clock::now();
    });
    if (!was_late) continue;
    std::atomic<bool> is_alone{true};
    const auto begin = Clock::now();
    pool.run(64, [&](int64_t, int thread) {
      if (thread != 0) is_alone = false;
      const auto end = Clock::now() + std::chrono::microseconds(20);
      while (Clock::now() < end) {
      }
    });
    if (begin - late_end > std::chrono::milliseconds(3)) continue;
    CHECK(is_alone);
    n_alone += 1;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  CHECK(n_alone > 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  std::atomic<int> n_begun{0};
  pool.run(2, [&](int64_t, int) { meet(n_begun); });
  CHECK(n_begun == 2);
}

TEST_CASE("ThreadPool: a region ends when its slowest item has", "[common][thread_pool]") {
  ThreadPool pool(2);
  for (int round = 0; round < 5; ++round) {
    std::atomic<int> n_begun{0};
    std::atomic<int> n_done{0};
    // One on each thread: the quick one's thread, which may be the caller's, has to wait.
    pool.run(2, [&](int64_t item, int) {
      meet(n_begun);
      if (item == round % 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      n_done += 1;
    });
    CHECK(n_done == 2);
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

TEST_CASE("ThreadPool: regions inside a region and beside one run on their callers",
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
