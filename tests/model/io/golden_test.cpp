// Models and logits that the Python library transformers made; see
// tests/golden/make_transformers.py.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>

#include <catch2/catch.hpp>

#include "common/io.h"
#include "formats/safetensors.h"
#include "model/io/export_model.h"
#include "model/io/jetmoe_export.h"
#include "model/io/olmoe_export.h"
#include "model/named_tensors.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

const std::string kGolden = DSMOE_SOURCE_DIR "/tests/golden/";

at::Tensor read_tensor(const std::string& path, const std::string& name) {
  const SafetensorsFile file(posix_io(), path);
  const auto* entry = file.find(name);
  REQUIRE(entry != nullptr);
  auto tensor = at::empty(entry->shape, dtype_from_name(entry->dtype));
  file.read(*entry, tensor.data_ptr());
  return tensor;
}

struct Golden {
  std::string family;
  Transformer (*read)(Io&, const std::string&);
  int64_t n_selected;
  int64_t n_experts;
};

RoutingPlan top_k_of_both_kinds(int64_t k) {
  const auto policy = RoutingPolicy::top_k(k);
  return RoutingPlan(LayerRouting{.moa = policy, .moe = policy});
}

Transformer read_golden(const Golden& golden) {
  auto model = golden.read(posix_io(), kGolden + golden.family);
  model->eval();
  return model;
}

// Olmoe has no attention experts: its plan's first half is never used.
double error_of(Transformer& model, const Golden& golden, const RoutingPlan& plan, int64_t k) {
  const at::NoGradGuard no_grad;
  const auto file = kGolden + golden.family + "/golden.safetensors";
  const auto expected = read_tensor(file, "logits_top_" + std::to_string(k));
  const auto logits = model->forward(read_tensor(file, "tokens"), plan).logits;
  REQUIRE(expected.abs().max().item<double>() > 1);
  return (logits - expected).abs().max().item<double>();
}

Golden golden_models() {
  return GENERATE(Golden{"jetmoe", read_jetmoe, 2, 4}, Golden{"olmoe", read_olmoe, 2, 5});
}

}  // namespace

TEST_CASE("golden: logits of transformers, with some experts and with all", "[model][io]") {
  const auto golden = golden_models();
  INFO(golden.family);
  auto model = read_golden(golden);
  for (const int64_t k : {golden.n_selected, golden.n_experts}) {
    for (const auto execution : {Execution::kDense, Execution::kSparse}) {
      CHECK(error_of(model, golden, top_k_of_both_kinds(k).with(execution), k) < 1e-4);
    }
  }
  CHECK(error_of(model, golden, RoutingPolicy::all(), golden.n_experts) < 1e-4);
}

TEST_CASE("golden: decoding token by token gives the same logits", "[model][io]") {
  const auto golden = golden_models();
  INFO(golden.family);
  auto model = read_golden(golden);
  const at::NoGradGuard no_grad;
  const auto file = kGolden + golden.family + "/golden.safetensors";
  const auto tokens = read_tensor(file, "tokens");
  const auto expected = read_tensor(file, "logits_top_" + std::to_string(golden.n_selected));
  auto cache = model->make_cache(tokens.size(0), tokens.size(1), at::kFloat);
  for (int64_t t = 0; t < tokens.size(1); ++t) {
    const auto step = model->forward(
        tokens.narrow(1, t, 1), top_k_of_both_kinds(golden.n_selected), {.cache = &cache});
    cache.advance(1);
    CHECK((step.logits.select(1, 0) - expected.select(1, t)).abs().max().item<double>() < 1e-4);
  }
}

TEST_CASE("golden: a model read from transformers is written with the same bits", "[model][io]") {
  const auto golden = golden_models();
  INFO(golden.family);
  const auto model = read_golden(golden);
  const TemporaryDirectory directory;
  const auto out = directory.file("out");
  export_model(
      posix_io(),
      model,
      "hf-" + golden.family,
      {.plan = parse_routing_plan(model->config().training_policy), .dtype = at::kBFloat16},
      out);
  const SafetensorsFile original(posix_io(), kGolden + golden.family + "/model.safetensors");
  const SafetensorsFile written(posix_io(), out + "/model.safetensors");
  REQUIRE(written.tensors().size() == original.tensors().size());
  for (const auto& entry : original.tensors()) {
    INFO(entry.name);
    CHECK(at::equal(read_tensor(out + "/model.safetensors", entry.name),
                    read_tensor(kGolden + golden.family + "/model.safetensors", entry.name)));
  }
}

}  // namespace dsmoe
