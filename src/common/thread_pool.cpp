#include "common/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace dsmoe {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr int kSpins = 1000;  // some tens of microseconds
constexpr auto kYielding = microseconds(300);
// A worker is late if it ends its last item later than the caller by more than kLateItems of the
// caller's items plus kLate.
constexpr int kLateItems = 4;
constexpr auto kLate = microseconds(200);
constexpr auto kAloneLeast = milliseconds(4);
constexpr auto kAloneMost = milliseconds(256);

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

ThreadPool::ThreadPool(int n_threads, Now now) : now_(now) {
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
  const auto run_alone = [&] {
    for (int64_t item = 0; item < region.n_items; ++item) region.call(region.context, item, 0);
  };
  if (workers_.empty() || region.n_items <= 1 || is_taken_.exchange(true)) return run_alone();
  if (now_() < alone_until_) {
    run_alone();
  } else {
    run_shared(region);
  }
  is_taken_ = false;
}

void ThreadPool::run_shared(const Region& region) {
  region_ = region;
  next_item_ = 0;
  phase_.fetch_add(1);
  if (n_asleep_ > 0) phase_.notify_all();
  const auto begin = now_();
  const int64_t n_done = claim_items(0);
  phase_.fetch_add(1);
  // A worker counts itself in before it checks whether the region is still open: none is missed.
  if (n_inside_ == 0) return;
  const auto done = now_();
  wait_for_workers();
  const auto end = now_();
  const auto item = (done - begin) / std::max<int64_t>(n_done, 1);
  if (end - done > kLate + kLateItems * item) note_late_worker(end);
}

// Sleeps instead of yielding: on a busy machine a yield gives a whole time slice away.
void ThreadPool::wait_for_workers() {
  for (int spins = 0; spins < kSpins; ++spins) {
    if (n_inside_ == 0) return;
    pause_briefly();
  }
  caller_sleeps_ = true;
  for (int inside = n_inside_; inside > 0; inside = n_inside_) n_inside_.wait(inside);
  caller_sleeps_ = false;
}

void ThreadPool::note_late_worker(Clock::time_point now) {
  const bool again = now - alone_until_ < 4 * alone_for_;
  alone_for_ = again ? std::min<Clock::duration>(2 * alone_for_, kAloneMost) : kAloneLeast;
  alone_until_ = now + alone_for_;
}

// Returns the number of items that it did.
int64_t ThreadPool::claim_items(int thread) noexcept {
  for (int64_t n_done = 0;; ++n_done) {
    const int64_t item = next_item_.fetch_add(1, std::memory_order_relaxed);
    if (item >= region_.n_items) return n_done;
    region_.call(region_.context, item, thread);
  }
}

void ThreadPool::leave() noexcept {
  n_inside_.fetch_sub(1);
  if (caller_sleeps_) n_inside_.notify_all();
}

void ThreadPool::serve(int thread) {
  uint32_t seen = 0;
  for (;;) {
    seen = wait_for_change(seen);
    if (is_ending_) return;
    if (seen % 2 == 0) continue;
    n_inside_.fetch_add(1);
    if (phase_ == seen) claim_items(thread);
    leave();
  }
}

uint32_t ThreadPool::wait_for_change(uint32_t seen) {
  for (int i = 0; i < kSpins; ++i) {
    if (phase_ != seen) return phase_;
    pause_briefly();
  }
  // Bounded by the clock: on a busy machine one yield may take milliseconds.
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
