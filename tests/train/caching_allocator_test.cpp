#include "train/caching_allocator.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <thread>

namespace dsmoe {
namespace {

constexpr int64_t kMebibyte = int64_t{1} << 20;

at::Tensor floats(int64_t bytes) { return at::empty({bytes / 4}, at::kFloat); }

// Nothing of other tests waits.
void start_afresh() {
  caching_allocator::install();
  caching_allocator::trim();
  caching_allocator::trim();
}

}  // namespace

TEST_CASE("caching_allocator: a freed block serves the next tensor of its size", "[train]") {
  start_afresh();
  const auto before = caching_allocator::usage();
  auto tensor = floats(3 * kMebibyte);
  const void* data = tensor.data_ptr();
  CHECK(reinterpret_cast<uintptr_t>(data) % 64 == 0);
  const auto held = caching_allocator::usage().in_use - before.in_use;
  CHECK(held >= 3 * kMebibyte);
  CHECK(held <= 3 * kMebibyte * 9 / 8 + 64);
  tensor.reset();
  CHECK(caching_allocator::usage().in_use == before.in_use);
  CHECK(caching_allocator::usage().waiting == before.waiting + held);
  CHECK(floats(3 * kMebibyte - 4096).data_ptr() == data);  // a little smaller: the same class
  CHECK(floats(5 * kMebibyte).data_ptr() != data);
}

TEST_CASE("caching_allocator: trim returns blocks that a whole step did not use", "[train]") {
  start_afresh();
  const auto before = caching_allocator::usage().waiting;
  {
    const auto a = floats(2 * kMebibyte);
    const auto b = floats(2 * kMebibyte);
    // Not at one place of a page: their streams would map to the same sets of the cache.
    CHECK((static_cast<char*>(b.data_ptr()) - static_cast<char*>(a.data_ptr())) % 4096 != 0);
  }
  const auto both = caching_allocator::usage().waiting;
  CHECK(both >= before + 4 * kMebibyte);
  caching_allocator::trim();  // both were used since the last call
  CHECK(caching_allocator::usage().waiting == both);
  { const auto one = floats(2 * kMebibyte); }
  caching_allocator::trim();
  CHECK(caching_allocator::usage().waiting == before + (both - before) / 2);
  caching_allocator::trim();
  CHECK(caching_allocator::usage().waiting == before);
}

TEST_CASE("caching_allocator: small, empty and resized tensors keep their values", "[train]") {
  start_afresh();
  const auto before = caching_allocator::usage().in_use;
  auto small = at::arange(1000, at::kFloat);  // below what is kept
  CHECK(caching_allocator::usage().in_use == before);
  CHECK(at::empty({0}, at::kFloat).numel() == 0);
  small.resize_({kMebibyte});
  CHECK(at::equal(small.narrow(0, 0, 1000), at::arange(1000, at::kFloat)));
}

TEST_CASE("caching_allocator: a block may be freed by another thread", "[train]") {
  start_afresh();
  auto tensor = floats(kMebibyte);
  const void* data = tensor.data_ptr();
  std::thread([taken = std::move(tensor)]() mutable { taken.reset(); }).join();
  CHECK(floats(kMebibyte).data_ptr() == data);
}

}  // namespace dsmoe
