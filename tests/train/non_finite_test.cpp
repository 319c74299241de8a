#include "train/non_finite.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros_like.h>

#include <catch2/catch.hpp>
#include <limits>

#include "support/tiny_model.h"
#include "train/finite.h"

namespace dsmoe {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

at::Tensor named_parameter(Transformer& model, const std::string& name) {
  for (const auto& [found, tensor] : named_parameters(*model)) {
    if (found == name) return tensor;
  }
  throw std::invalid_argument(name);
}

std::optional<NonFiniteOrigin> locate(Transformer& model) {
  Batch batch;
  batch.tokens = at::arange(20, at::kLong).view({2, 10});  // [batch, seq]
  return locate_non_finite(model, batch, RoutingPolicy::all(), {});
}

TEST_CASE("first_non_finite: the index of the first NaN or Inf", "[train][guard]") {
  auto values = at::zeros({70, 100});
  CHECK_FALSE(first_non_finite(values));
  values.view(-1)[6999] = -std::numeric_limits<double>::infinity();
  CHECK(first_non_finite(values) == 6999);
  values.view(-1)[4096] = kNan;
  CHECK(first_non_finite(values) == 4096);
  values.view(-1)[0] = std::numeric_limits<float>::denorm_min();
  values.view(-1)[1] = std::numeric_limits<float>::max();
  CHECK(first_non_finite(values) == 4096);
  // [40][96] of the rows is [96][40] of the columns; [69][99] comes later.
  CHECK(first_non_finite(values.t()) == 96 * 70 + 40);
}

TEST_CASE("locate_non_finite: a weight is named with its layer and expert", "[train][guard]") {
  const at::NoGradGuard no_grad;
  auto model = make_tiny_model();
  SECTION("up_proj: experts are rows") {
    named_parameter(model, "blocks_1.moe.experts.up_proj.weight")[2 * 3 + 1][4] = kNan;
    CHECK(locate(model)->to_string() ==
          "first in the weights of 'blocks_1.moe.experts.up_proj.weight' (layer 1, moe expert 2)");
  }
  SECTION("down_proj: experts are columns") {
    named_parameter(model, "blocks_0.moe.experts.down_proj.weight")[7][4 * 3] = kNan;
    const auto origin = locate(model);
    CHECK(origin->layer == 0);
    CHECK(origin->expert == 4);
  }
  SECTION("o_proj of attention experts") {
    named_parameter(model, "blocks_1.moa.o_proj.weight")[0][2 * 8 - 1] = kNan;
    const auto origin = locate(model);
    CHECK(origin->kind == "moa");
    CHECK(origin->expert == 1);
  }
  SECTION("a norm belongs to no expert") {
    named_parameter(model, "blocks_1.ffn_norm.weight")[0] = kNan;
    CHECK(locate(model)->to_string() ==
          "first in the weights of 'blocks_1.ffn_norm.weight' (layer 1)");
  }
}

TEST_CASE("locate_non_finite: finite weights that overflow in one expert", "[train][guard]") {
  const at::NoGradGuard no_grad;
  auto model = make_tiny_model();
  const std::string layer = GENERATE("0", "1");
  SECTION("FFN expert") {
    named_parameter(model, "blocks_" + layer + ".moe.experts.up_proj.weight")
        .narrow(0, 3 * 3, 3)
        .fill_(1e30);
    named_parameter(model, "blocks_" + layer + ".moe.experts.down_proj.weight")
        .narrow(1, 3 * 3, 3)
        .fill_(1e30);
    const auto before = named_parameter(model, "blocks_1.moe.experts.up_proj.weight").clone();
    CHECK(locate(model)->to_string() ==
          "first in the forward pass (layer " + layer + ", moe expert 3)");
    CHECK(before.equal(named_parameter(model, "blocks_1.moe.experts.up_proj.weight")));
  }
  SECTION("attention expert") {
    named_parameter(model, "blocks_" + layer + ".moa.v_proj.weight").mul_(1e4);
    named_parameter(model, "blocks_" + layer + ".moa.o_proj.weight")
        .narrow(1, 2 * 8, 8)
        .fill_(3e38);
    CHECK(locate(model)->to_string() ==
          "first in the forward pass (layer " + layer + ", moa expert 2)");
  }
}

TEST_CASE("locate_non_finite: the gradient nearest to the loss, if all else is finite",
          "[train][guard]") {
  auto model = make_tiny_model();
  CHECK_FALSE(locate(model));
  for (const std::string name : {"blocks_0.moe.experts.up_proj.weight",
                                 "blocks_1.moe.experts.gate_proj.weight",
                                 "blocks_1.moe.experts.up_proj.weight"}) {
    for (const auto& [found, tensor] : named_parameters(*model)) {
      if (found != name) continue;
      tensor.mutable_grad() = at::zeros_like(tensor).detach();
      tensor.mutable_grad()[4 * 3][0] = kNan;
    }
  }
  CHECK(locate(model)->to_string() ==
        "first in the gradients of 'blocks_1.moe.experts.up_proj.weight' (layer 1, moe expert 4)");
}

}  // namespace
}  // namespace dsmoe
