#include "train/random_state.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>

#include <catch2/catch.hpp>

#include "common/error.h"

namespace dsmoe {
namespace {

TEST_CASE("random state: a restored state repeats the draws", "[train][random_state]") {
  at::randn({3});  // an odd number of normals leaves a cached one
  const auto state = capture_random_state();
  const auto first = at::randn({37});
  CHECK_FALSE(at::equal(first, at::randn({37})));
  restore_random_state(state);
  CHECK(at::equal(first, at::randn({37})));
}

TEST_CASE("random state: another size is refused", "[train][random_state]") {
  CHECK_THROWS_AS(restore_random_state("short"), Error);
}

}  // namespace
}  // namespace dsmoe
