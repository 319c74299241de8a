// Models that transformers made, against the logits that it computes from them.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "csrc_kernels/random_tensors.h"
#include "model/io/model_source.h"

namespace dsmoe {
namespace {

at::Tensor read_tensor(const SafetensorsFile& file, const std::string& name) {
  const auto* entry = file.find(name);
  REQUIRE(entry != nullptr);
  auto value = at::empty(entry->shape, dtype_from_name(entry->dtype));
  file.read(*entry, value.data_ptr());
  return value;
}

}  // namespace

TEST_CASE("open_hf_llama: logits equal those of transformers, whole and decoded",
          "[model][io][golden]") {
  const at::NoGradGuard no_grad;
  for (const auto* name : {"llama_gqa", "llama_llama3", "llama_bias"}) {
    INFO(name);
    const auto folder = std::string(DSMOE_SOURCE_DIR "/tests/golden/") + name;
    const SafetensorsFile golden(posix_io(), folder + "/expected.safetensors");
    const auto tokens = read_tensor(golden, "tokens");
    const auto expected = read_tensor(golden, "logits");
    CHECK(expected.abs().max().item<double>() > 0.5);
    auto model = instantiate(open_hf_llama(posix_io(), folder));
    CHECK(max_difference(model(tokens, RoutingPolicy::all()).logits, expected) < 1e-4);

    auto cache = model->make_cache(tokens.size(0), tokens.size(1), at::kFloat);
    ForwardOptions options;
    options.cache = &cache;
    std::vector<at::Tensor> parts;
    int64_t begin = 0;
    for (const int64_t seq : {5, 1, 1, 4, 1}) {
      parts.push_back(model(tokens.narrow(1, begin, seq), RoutingPolicy::all(), options).logits);
      cache.advance(seq);
      begin += seq;
    }
    CHECK(max_difference(at::cat(parts, 1), expected) < 1e-4);
  }
}

}  // namespace dsmoe
