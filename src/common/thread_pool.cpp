#include "common/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSpins = 1000;  // some tens of microseconds
constexpr auto kYielding = std::chrono::microseconds(300);

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

int default_threads() {
  const char* asked = std::getenv("OMP_NUM_THREADS");
  const int n_asked = asked == nullptr ? 0 : std::atoi(asked);
  if (n_asked > 0) return n_asked;
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) return 1;
  return std::max(1, CPU_COUNT(&cores));
}

std::unique_ptr<ThreadPool>& process_pool() {
  static auto pool = std::make_unique<ThreadPool>(default_threads());
  return pool;
}

}  // namespace

ThreadPool::ThreadPool(int n_threads) {
  for (int thread = 1; thread < n_threads; ++thread) {
    workers_.emplace_back([this, thread] { serve(thread); });
  }
}

ThreadPool::~ThreadPool() {
  is_ending_ = true;
  phase_.fetch_add(2);
  phase_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::run_all(const Region& region) {
  if (workers_.empty() || region.n_items <= 1 || is_taken_.exchange(true)) {
    for (int64_t item = 0; item < region.n_items; ++item) region.call(region.context, item, 0);
    return;
  }
  region_ = region;
  next_item_ = 0;
  phase_.fetch_add(1);
  if (n_asleep_ > 0) phase_.notify_all();
  claim_items(0);
  phase_.fetch_add(1);
  // A worker counts itself in before it looks whether the region is still open: none is missed.
  for (int spins = 0; n_inside_ > 0; ++spins)
    spins < kSpins ? pause_briefly() : (void)sched_yield();
  is_taken_ = false;
}

void ThreadPool::claim_items(int thread) noexcept {
  for (;;) {
    const int64_t item = next_item_.fetch_add(1, std::memory_order_relaxed);
    if (item >= region_.n_items) return;
    region_.call(region_.context, item, thread);
  }
}

void ThreadPool::serve(int thread) {
  uint32_t seen = 0;
  for (;;) {
    seen = wait_for_change(seen);
    if (is_ending_) return;
    if (seen % 2 == 0) continue;
    n_inside_.fetch_add(1);
    if (phase_ == seen) claim_items(thread);
    n_inside_.fetch_sub(1);
  }
}

uint32_t ThreadPool::wait_for_change(uint32_t seen) {
  for (int i = 0; i < kSpins; ++i) {
    if (phase_ != seen) return phase_;
    pause_briefly();
  }
  // By the clock: on a busy machine one yield may take milliseconds.
  for (const auto end = Clock::now() + kYielding; Clock::now() < end;) {
    if (phase_ != seen) return phase_;
    sched_yield();
  }
  n_asleep_.fetch_add(1);
  phase_.wait(seen);
  n_asleep_.fetch_sub(1);
  return phase_;
}

ThreadPool& kernel_threads() { return *process_pool(); }

void set_kernel_threads(int n_threads) {
  auto& pool = process_pool();
  if (pool->n_threads() == n_threads) return;
  pool.reset();
  pool = std::make_unique<ThreadPool>(n_threads);
}

}  // namespace dsmoe
