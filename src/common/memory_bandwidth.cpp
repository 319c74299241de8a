#include "common/memory_bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>

#include "common/huge_pages.h"
#include "common/thread_pool.h"

namespace dsmoe {
namespace {

using Line = uint64_t __attribute__((vector_size(64)));

constexpr int64_t kLines = (1 << 30) / static_cast<int64_t>(sizeof(Line));
constexpr int64_t kChunkLines = 1 << 14;  // 1 MiB
constexpr int kRounds = 7;

constexpr int64_t kWords = kLines * 8;

std::unique_ptr<HugePages>& memory() {
  static std::unique_ptr<HugePages> words;
  return words;
}

uint64_t* filled_memory() {
  auto& words = memory();
  if (words == nullptr) {
    words = std::make_unique<HugePages>(kWords * 8);
    std::fill_n(reinterpret_cast<uint64_t*>(words->data()), kWords, 1);
  }
  return reinterpret_cast<uint64_t*>(words->data());
}

uint64_t sum_chunk(const uint64_t* words) {
  Line sums[4] = {};
  for (int64_t i = 0; i < kChunkLines; i += 4) {
    for (int64_t j = 0; j < 4; ++j) {
      Line line;
      __builtin_memcpy(&line, words + (i + j) * 8, sizeof(line));
      sums[j] += line;
    }
  }
  uint64_t sum = 0;
  for (int lane = 0; lane < 8; ++lane) {
    for (const auto& line : sums) sum += line[lane];
  }
  return sum;
}

}  // namespace

double measure_read_bandwidth() {
  const uint64_t* words = filled_memory();
  double best = std::numeric_limits<double>::infinity();
  std::atomic<uint64_t> total{0};
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    kernel_threads().run(kLines / kChunkLines, [&](int64_t chunk, int) {
      total += sum_chunk(words + chunk * kChunkLines * 8);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::min(best, seconds.count());
  }
  // Uses the sum, so that the compiler keeps the reads.
  const bool is_right = total == static_cast<uint64_t>(kRounds * kWords);
  return is_right ? static_cast<double>(kLines) * sizeof(Line) / best : 0.0;
}

void release_bandwidth_memory() { memory() = nullptr; }

}  // namespace dsmoe
