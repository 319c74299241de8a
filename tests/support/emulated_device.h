#pragma once

#include <algorithm>
#include <any>
#include <barrier>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "csrc_kernels/common/device_body.h"

/// Executions of device kernels' bodies (csrc_kernels/common/device_body.h) on the CPU.
namespace dsmoe::emulated {

/// A block that runs its lanes one after the other between two barriers. It finds wrong indices and
/// arithmetic, not a missing barrier.
class SequentialContext {
 public:
  SequentialContext(const LaunchShape& shape, int64_t block)
      : shape_(shape), block_(block), shared_(static_cast<size_t>(shape.shared_bytes) / 16 + 1) {}

  int64_t block() const { return block_; }
  int64_t n_blocks() const { return shape_.n_blocks; }
  int n_lanes() const { return shape_.n_lanes; }
  void sync() {}

  template <typename T>
  T* shared() {
    return reinterpret_cast<T*>(shared_.data());
  }
  template <typename F>
  void lanes(F f) {
    for (int lane = 0; lane < n_lanes(); ++lane) f(lane);
  }
  template <typename F, typename Op>
  auto block_reduce(F f, Op op) {
    auto value = f(0);
    for (int lane = 1; lane < n_lanes(); ++lane) value = op(value, f(lane));
    return value;
  }
  template <typename F, typename Op, typename G>
  void warp_reduce(F f, Op op, G g) {
    for (int first = 0; first < n_lanes(); first += kWarpLanes) {
      auto value = f(first);
      for (int lane = first + 1; lane < first + kWarpLanes; ++lane) value = op(value, f(lane));
      g(first / kWarpLanes, value);
    }
  }

 private:
  struct alignas(16) Cell {
    std::byte bytes[16];
  };

  LaunchShape shape_;
  int64_t block_;
  std::vector<Cell> shared_;
};

/// Shared memory of one block.
struct ThreadBlock {
  ThreadBlock(const LaunchShape& launch, int64_t number)
      : shape(launch),
        block(number),
        shared(static_cast<size_t>(launch.shared_bytes) / sizeof(std::max_align_t) + 1),
        of_lane(static_cast<size_t>(launch.n_lanes)),
        barrier(launch.n_lanes) {
    for (int warp = 0; warp < launch.n_lanes / kWarpLanes; ++warp) warps.emplace_back(kWarpLanes);
  }

  LaunchShape shape;
  int64_t block;
  std::vector<std::max_align_t> shared;
  std::vector<std::any> of_lane;
  std::barrier<> barrier;
  std::deque<std::barrier<>> warps;
};

/// A lane that is a thread, for tiny grids under ThreadSanitizer: it reports what a missing barrier
/// lets race, and a barrier that not all lanes reach hangs.
class ThreadContext {
 public:
  ThreadContext(ThreadBlock& block, int lane) : block_(block), lane_(lane) {}

  int64_t block() const { return block_.block; }
  int64_t n_blocks() const { return block_.shape.n_blocks; }
  int n_lanes() const { return block_.shape.n_lanes; }
  void sync() { block_.barrier.arrive_and_wait(); }

  template <typename T>
  T* shared() {
    return reinterpret_cast<T*>(block_.shared.data());
  }
  template <typename F>
  void lanes(F f) {
    f(lane_);
  }
  template <typename F, typename Op>
  auto block_reduce(F f, Op op) {
    return joined(f(lane_), op, 0, n_lanes(), block_.barrier);
  }
  template <typename F, typename Op, typename G>
  void warp_reduce(F f, Op op, G g) {
    const int first = lane_ - lane_ % kWarpLanes;
    auto& warp = block_.warps[static_cast<size_t>(lane_ / kWarpLanes)];
    const auto value = joined(f(lane_), op, first, first + kWarpLanes, warp);
    if (lane_ == first) g(lane_ / kWarpLanes, value);
  }

 private:
  template <typename V, typename Op>
  V joined(V own, Op op, int begin, int end, std::barrier<>& barrier) {
    block_.of_lane[static_cast<size_t>(lane_)] = own;
    barrier.arrive_and_wait();
    auto value = std::any_cast<V>(block_.of_lane[static_cast<size_t>(begin)]);
    for (int lane = begin + 1; lane < end; ++lane) {
      value = op(value, std::any_cast<V>(block_.of_lane[static_cast<size_t>(lane)]));
    }
    barrier.arrive_and_wait();
    return value;
  }

  ThreadBlock& block_;
  int lane_;
};

/// Refuses launches that a GPU would refuse.
inline void check_launch(const LaunchShape& shape) {
  constexpr int kMaxLanes = 1024;
  constexpr int64_t kMaxSharedBytes = 48 << 10;  // more needs an attribute of the kernel
  if (shape.n_lanes < kWarpLanes || shape.n_lanes > kMaxLanes || shape.n_lanes % kWarpLanes != 0 ||
      shape.n_blocks < 0 || shape.n_blocks > INT32_MAX || shape.shared_bytes < 0 ||
      shape.shared_bytes > kMaxSharedBytes) {
    throw std::invalid_argument("emulated launch: a GPU would refuse its shape");
  }
}

/// Blocks one after the other.
template <typename Body>
void run_sequential(const LaunchShape& shape, Body body) {
  check_launch(shape);
  for (int64_t block = 0; block < shape.n_blocks; ++block) {
    SequentialContext ctx(shape, block);
    body(ctx);
  }
}

/// Blocks in another order: exposes a block that needs the result of another one.
template <typename Body>
void run_shuffled(const LaunchShape& shape, uint64_t seed, Body body) {
  check_launch(shape);
  std::vector<int64_t> order(static_cast<size_t>(shape.n_blocks));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  for (const int64_t block : order) {
    SequentialContext ctx(shape, block);
    body(ctx);
  }
}

/// A thread per lane, block after block.
template <typename Body>
void run_threads(const LaunchShape& shape, Body body) {
  check_launch(shape);
  for (int64_t index = 0; index < shape.n_blocks; ++index) {
    ThreadBlock block(shape, index);
    std::vector<std::jthread> threads;
    for (int lane = 0; lane < shape.n_lanes; ++lane) {
      threads.emplace_back([&block, &body, lane] {
        ThreadContext ctx(block, lane);
        body(ctx);
      });
    }
  }
}

}  // namespace dsmoe::emulated
