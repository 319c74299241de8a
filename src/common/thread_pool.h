#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace dsmoe {

/// Threads for regions of microseconds, as the kernels of inference have by the hundred per token.
///
/// A region's items are claimed one by one, and its end waits for claimed items only: a worker that
/// the system has put aside delays nothing it did not begin. One that was put aside in the middle
/// of an item does; the caller then goes on alone for some milliseconds, longer the sooner it
/// happens again, so that a busy machine costs the help of the other threads and hardly more. A
/// worker without work spins for some tens of microseconds, then yields, then sleeps. OpenMP's team
/// either spins for good or sleeps at once.
class ThreadPool {
 public:
  using Clock = std::chrono::steady_clock;
  /// Time by which a worker is found late.
  using Now = Clock::time_point (*)();

  /// n_threads counts the caller of run(). A test passes a clock that it advances itself.
  explicit ThreadPool(int n_threads, Now now = &Clock::now);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }
  int n_asleep() const { return n_asleep_; }  ///< workers that only a new region wakes

  /// Calls body(item, thread) for every item in 0 .. n_items - 1 and thread in 0 .. n_threads() -
  /// 1, in any order; returns when all are done. The body may not throw. A region begun inside
  /// another one, while another thread has one or after a late worker, runs on its caller alone, as
  /// thread 0: items may not wait for one another.
  template <typename Body>
  void run(int64_t n_items, const Body& body) {
    static_assert(std::is_invocable_v<const Body&, int64_t, int>);
    run_all({.call = [](const void* context,
                        int64_t item,
                        int thread) { (*static_cast<const Body*>(context))(item, thread); },
             .context = &body,
             .n_items = n_items});
  }

 private:
  struct Region {
    void (*call)(const void* context, int64_t item, int thread);
    const void* context;
    int64_t n_items;
  };

  void run_all(const Region& region);
  void run_shared(const Region& region);
  int64_t claim_items(int thread) noexcept;
  void leave() noexcept;
  void wait_for_workers();
  void note_late_worker(Clock::time_point now);
  void serve(int thread);
  uint32_t wait_for_change(uint32_t seen);

  const Now now_;
  Region region_{};
  std::atomic<bool> is_taken_{false};
  std::atomic<bool> is_ending_{false};
  // A cache line each: all threads write them.
  alignas(64) std::atomic<int64_t> next_item_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};  // odd while a region is open
  alignas(64) std::atomic<int> n_inside_{0};    // workers that may look at region_
  alignas(64) std::atomic<int> n_asleep_{0};
  std::atomic<bool> caller_sleeps_{false};
  // Of the caller that has the region.
  Clock::time_point alone_until_{};
  Clock::duration alone_for_{};
  std::vector<std::thread> workers_;
};

/// The process's pool, made at its first use: as many threads as OMP_NUM_THREADS says, else as this
/// process may use cores.
ThreadPool& kernel_threads();

/// Replaces the process's pool by one of n_threads; not while a region runs.
void set_kernel_threads(int n_threads);

}  // namespace dsmoe
