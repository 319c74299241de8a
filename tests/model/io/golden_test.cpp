// Models and logits that the Python library transformers made; see
// tests/golden/make_transformers.py.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>

#include <catch2/catch.hpp>
#include <set>

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
  std::string folder;
  std::string target;
  Transformer (*read)(Io&, const std::string&);
  int64_t n_selected;
  int64_t n_experts;
};

RoutingPlan top_k_of_both_kinds(int64_t k) {
  const auto policy = RoutingPolicy::top_k(k);
  return RoutingPlan(LayerRouting{.moa = policy, .moe = policy});
}

Transformer read_golden(const Golden& golden) {
  auto model = golden.read(posix_io(), kGolden + golden.folder);
  model->eval();
  return model;
}

// Olmoe has no attention experts: its plan's first half is never used.
double error_of(Transformer& model, const Golden& golden, const RoutingPlan& plan, int64_t k) {
  const at::NoGradGuard no_grad;
  const auto file = kGolden + golden.folder + "/golden.safetensors";
  const auto expected = read_tensor(file, "logits_top_" + std::to_string(k));
  const auto logits = model->forward(read_tensor(file, "tokens"), plan).logits;
  REQUIRE(expected.abs().max().item<double>() > 1);
  return (logits - expected).abs().max().item<double>();
}

Golden golden_models() {
  return GENERATE(Golden{"jetmoe", "hf-jetmoe", read_jetmoe, 2, 4},
                  Golden{"jetmoe_silu", "hf-jetmoe", read_jetmoe, 2, 4},
                  Golden{"jetmoe_quick_gelu", "hf-jetmoe", read_jetmoe, 2, 4},
                  Golden{"jetmoe_relu_squared", "hf-jetmoe", read_jetmoe, 2, 4},
                  Golden{"olmoe", "hf-olmoe", read_olmoe, 2, 5});
}

}  // namespace

TEST_CASE("golden: logits of transformers, with some experts and with all", "[model][io]") {
  const auto golden = golden_models();
  INFO(golden.folder);
  auto model = read_golden(golden);
  for (const int64_t k : {golden.n_selected, golden.n_experts}) {
    for (const auto execution : {Execution::kDense, Execution::kSparse}) {
      CHECK(error_of(model, golden, top_k_of_both_kinds(k).with(execution), k) < 1e-4);
    }
  }
  CHECK(error_of(model, golden, RoutingPolicy::all(), golden.n_experts) < 1e-4);
}

TEST_CASE("golden: the JetMoE models have biases, an untied head and each activation",
          "[model][io]") {
  std::set<Activation> activations;
  std::set<bool> tied;
  for (const char* folder : {"jetmoe", "jetmoe_silu", "jetmoe_quick_gelu", "jetmoe_relu_squared"}) {
    INFO(folder);
    const auto model = read_jetmoe(posix_io(), kGolden + folder);
    CHECK(model->config().output_bias);
    activations.insert(model->config().ffn.activation);
    tied.insert(model->config().tie_embeddings);
    for (const auto& [name, tensor] : named_tensors(*model)) {
      if (name.ends_with("bias")) CHECK(tensor.abs().min().item<double>() > 0);
    }
  }
  CHECK((activations == std::set{Activation::kSwiglu,
                                 Activation::kSilu,
                                 Activation::kQuickGelu,
                                 Activation::kReluSquared}));
  CHECK(tied.size() == 2);
}

TEST_CASE("golden: decoding token by token gives the same logits", "[model][io]") {
  const auto golden = golden_models();
  INFO(golden.folder);
  auto model = read_golden(golden);
  const at::NoGradGuard no_grad;
  const auto file = kGolden + golden.folder + "/golden.safetensors";
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
  INFO(golden.folder);
  const auto model = read_golden(golden);
  const TemporaryDirectory directory;
  const auto out = directory.file("out");
  const SafetensorsFile original(posix_io(), kGolden + golden.folder + "/model.safetensors");
  export_model(posix_io(),
               model,
               golden.target,
               {.plan = parse_routing_plan(model->config().training_policy),
                .dtype = dtype_from_name(original.tensors().front().dtype)},
               out);
  const SafetensorsFile written(posix_io(), out + "/model.safetensors");
  REQUIRE(written.tensors().size() == original.tensors().size());
  for (const auto& entry : original.tensors()) {
    INFO(entry.name);
    CHECK(at::equal(read_tensor(out + "/model.safetensors", entry.name),
                    read_tensor(kGolden + golden.folder + "/model.safetensors", entry.name)));
  }
}

}  // namespace dsmoe
