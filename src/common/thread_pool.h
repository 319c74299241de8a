#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace dsmoe {

/// Threads for parallel regions of microseconds; inference kernels run hundreds of regions per
/// token.
///
/// Threads claim a region's items one by one, and the region ends when all claimed items are done.
/// A preempted worker delays only the items it has claimed. After such a delay the caller works
/// alone for some milliseconds, longer if the next delay follows soon: on a busy machine the
/// program loses the help of the other threads and hardly more. A worker without work spins for
/// some tens of microseconds, then yields, then sleeps. OpenMP's team either spins forever or
/// sleeps at once.
class ThreadPool {
 public:
  using Clock = std::chrono::steady_clock;
  /// Clock by which a worker is late.
  using Now = Clock::time_point (*)();

  /// n_threads counts the caller of run(). A test passes a clock that it advances itself.
  explicit ThreadPool(int n_threads, Now now = &Clock::now);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }
  int n_asleep() const { return n_asleep_; }  ///< workers that only a new region wakes

  /// Calls body(item, thread) for every item in 0 .. n_items - 1 and thread in 0 .. n_threads() -
  /// 1, in any order; returns when all are done. The body may not throw. A region runs on its
  /// caller alone, as thread 0, if it begins inside another region, while another thread runs a
  /// region, or soon after a late worker: items may not wait for one another.
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
  // Used only by the caller that runs the region.
  Clock::time_point alone_until_{};
  Clock::duration alone_for_{};
  std::vector<std::thread> workers_;
};

/// Returns the process's pool, made at its first use, with OMP_NUM_THREADS threads, else one per
/// core that this process may use.
ThreadPool& kernel_threads();

/// Replaces the process's pool by one of n_threads; no region may run meanwhile.
void set_kernel_threads(int n_threads);

}  // namespace dsmoe
