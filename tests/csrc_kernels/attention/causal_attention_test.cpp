#include "csrc_kernels/attention/causal_attention.h"

#include <ATen/TensorOperators.h>

#include <catch2/catch.hpp>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {
TEST_CASE("causal_attention: smoke", "[csrc_kernels][attention]") {
  RandomTensors random(11);
  for (auto type : {at::kDouble, at::kFloat, at::kBFloat16}) {
  for (auto products : {BlockProducts::kPortable, BlockProducts::kFloat32, BlockProducts::kBfloat16}) {
  for (auto layout : {HeadLayout::kKvMajor, HeadLayout::kExpertMajor}) {
  for (int64_t seq : {1, 3, 16, 64, 127, 128, 300, 513}) {
   for (int64_t d : {1, 24, 13, 64}) {
    auto q = random.normal({2, seq, 4, d}, type).requires_grad_(true), k = random.normal({2, seq, 2, d}, type).requires_grad_(true), v = random.normal({2, seq, 2, d}, type).requires_grad_(true);
    auto q2 = leaf_copy(q.to(at::kDouble)), k2 = leaf_copy(k.to(at::kDouble)), v2 = leaf_copy(v.to(at::kDouble));
    auto g = random.normal({2, seq, 4, d}, type);
    auto y = causal_attention(q, k, v, layout, products);
    auto r = causal_attention_ref(q2, k2, v2, layout);
    y.backward(g); r.backward(g.to(at::kDouble));
    double tol = type == at::kDouble ? 1e-12 : type == at::kFloat ? 1e-5 : 4e-2;
    CAPTURE(type, (int)products, (int)layout, seq, d);
    CHECK(max_difference(y, r) < tol);
    CHECK(max_difference(q.grad(), q2.grad()) < tol);
    CHECK(max_difference(k.grad(), k2.grad()) < tol*4);
    CHECK(max_difference(v.grad(), v2.grad()) < tol*4);
  }}}}}
}
}  // namespace dsmoe
