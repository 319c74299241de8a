#include "train/caching_allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "common/error.h"

namespace dsmoe::caching_allocator {
namespace {

constexpr size_t kLargeBytes = size_t{1} << 16;
constexpr size_t kHeaderBytes = 64;  // keeps the alignment of the data behind it
constexpr size_t kPageBytes = 4096;

struct Header {
  size_t block_bytes;   // zero: the block is not from the pool
  size_t tensor_bytes;  // of the tensor that has the block
  size_t filled_bytes;  // of the pool's block: the largest tensor that had it
};

// An atomic number and its peak value.
class Gauge {
 public:
  void add(int64_t n) {
    const int64_t now = now_.fetch_add(n) + n;
    int64_t peak = peak_;
    while (now > peak && !peak_.compare_exchange_weak(peak, now)) {
    }
  }
  int64_t now() const { return now_; }
  int64_t peak() const { return peak_; }
  void reset_peak() { peak_ = now_.load(); }

 private:
  std::atomic<int64_t> now_{0};
  std::atomic<int64_t> peak_{0};
};

Gauge tensor_bytes;
Gauge held_bytes;

// Similar sizes share blocks. At most an eighth of a block is unused, and untouched pages use no
// memory.
size_t rounded_up(size_t bytes) {
  const size_t grain = std::bit_floor(bytes) / 8;
  return (bytes + grain - 1) / grain * grain;
}

class BlockPool {
 public:
  void* take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    usage_.in_use += static_cast<int64_t>(bytes);
    auto& [waiting, least_waiting] = blocks_[bytes];
    if (waiting.empty()) return map(bytes);
    void* block = waiting.back();
    waiting.pop_back();
    least_waiting = std::min(least_waiting, waiting.size());
    usage_.waiting -= static_cast<int64_t>(bytes);
    return block;
  }

  void give(void* block, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocks_[bytes].waiting.push_back(block);
    usage_.in_use -= static_cast<int64_t>(bytes);
    usage_.waiting += static_cast<int64_t>(bytes);
  }

  void trim() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [bytes, blocks] : blocks_) {
      auto& waiting = blocks.waiting;
      const auto unused = waiting.begin() + static_cast<std::ptrdiff_t>(blocks.least_waiting);
      std::for_each(waiting.begin(), unused, [n = bytes](void* block) { unmap(block, n); });
      usage_.waiting -= static_cast<int64_t>(bytes * blocks.least_waiting);
      waiting.erase(waiting.begin(), unused);
      blocks.least_waiting = waiting.size();
    }
  }

  void release_waiting() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [bytes, blocks] : blocks_) {
      for (void* block : blocks.waiting) unmap(block, bytes);
      blocks = {};
    }
    usage_.waiting = 0;
  }

  Usage usage() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return usage_;
  }

 private:
  struct Blocks {
    std::vector<void*> waiting;
    size_t least_waiting = 0;  // minimum since the last trim: this many were never needed
  };

  // Blocks start at different places of a page: streams over tensors that all start at the same one
  // would map to the same sets of the cache.
  void* map(size_t bytes) {
    void* pages = mmap(
        nullptr, bytes + kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
      throw RunError("out of memory: no " + std::to_string(bytes >> 20) + " MiB for a tensor");
    }
    n_mapped_ += 1;
    return static_cast<char*>(pages) + n_mapped_ * 5 * kHeaderBytes % kPageBytes;
  }

  static void unmap(void* block, size_t bytes) {
    held_bytes.add(-static_cast<int64_t>(static_cast<Header*>(block)->filled_bytes));
    const size_t into_page = reinterpret_cast<uintptr_t>(block) % kPageBytes;
    munmap(static_cast<char*>(block) - into_page, bytes + kPageBytes);
  }

  std::mutex mutex_;
  std::map<size_t, Blocks> blocks_;
  size_t n_mapped_ = 0;
  Usage usage_;
};

BlockPool& pool() {
  static auto* pool = new BlockPool;  // outlives every tensor
  return *pool;
}

class CachingAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t n) override {
    if (n == 0) return {nullptr, nullptr, &release, at::kCPU};
    const size_t block_bytes = n < kLargeBytes ? 0 : rounded_up(n) + kHeaderBytes;
    void* block = block_bytes == 0 ? c10::alloc_cpu(n + kHeaderBytes) : pool().take(block_bytes);
    note_tensor(*static_cast<Header*>(block), n, block_bytes);
    void* data = static_cast<char*>(block) + kHeaderBytes;
    return {data, data, &release, at::kCPU};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &release; }

  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }

 private:
  static void note_tensor(Header& header, size_t n, size_t block_bytes) {
    if (block_bytes == 0) header.filled_bytes = 0;
    header.block_bytes = block_bytes;
    header.tensor_bytes = n;
    tensor_bytes.add(static_cast<int64_t>(n));
    if (n <= header.filled_bytes) return;
    held_bytes.add(static_cast<int64_t>(n - header.filled_bytes));
    header.filled_bytes = n;
  }

  static void release(void* data) {
    if (data == nullptr) return;
    void* block = static_cast<char*>(data) - kHeaderBytes;
    const auto& header = *static_cast<Header*>(block);
    const size_t block_bytes = header.block_bytes;
    tensor_bytes.add(-static_cast<int64_t>(header.tensor_bytes));
    if (block_bytes == 0) {
      held_bytes.add(-static_cast<int64_t>(header.filled_bytes));
      c10::free_cpu(block);
    } else {
      pool().give(block, block_bytes);
    }
  }
};

}  // namespace

void install() {
  static auto* allocator = new CachingAllocator;
  c10::SetCPUAllocator(allocator, 1);
}

void trim() { pool().trim(); }

void release_waiting() { pool().release_waiting(); }

Usage usage() {
  auto usage = pool().usage();
  usage.tensors = tensor_bytes.now();
  usage.held = held_bytes.now();
  usage.peak_tensors = tensor_bytes.peak();
  usage.peak_held = held_bytes.peak();
  return usage;
}

void reset_peaks() {
  tensor_bytes.reset_peak();
  held_bytes.reset_peak();
}

}  // namespace dsmoe::caching_allocator
