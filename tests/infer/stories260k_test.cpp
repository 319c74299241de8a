// A published model, converted from its llama2.c file, against reference outputs that two other
// programs agree on.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "common/io.h"
#include "csrc_kernels/random_tensors.h"
#include "data/tokenizer_files.h"
#include "infer/engine.h"
#include "model/io/model_source.h"
#include "model/moe/ffn_partition.h"
#include "support/shared_data.h"

namespace dsmoe {
namespace {

const std::string kFolder = "models/stories260K/";

struct Reference {
  nlohmann::json json;
  std::string logits_bytes;
  at::Tensor prompt;  // [1, 16]
  at::Tensor logits;  // [16, 512]
};

Reference read_reference() {
  Reference reference;
  auto& io = posix_io();
  const auto json = read_file(io, shared_data(kFolder + "reference.json"), 1 << 20);
  reference.json = nlohmann::json::parse(json);
  reference.logits_bytes = read_file(io, shared_data(kFolder + "logits_prompt0.f32"), 1 << 20);
  reference.logits = at::from_blob(reference.logits_bytes.data(), {16, 512}, at::kFloat);
  const auto ids = reference.json["prompts"][0]["ids"].get<std::vector<int64_t>>();
  reference.prompt = at::tensor(ids, at::kLong).unsqueeze(0);
  return reference;
}

Transformer load_stories() {
  return instantiate(open_llama2c(posix_io(), shared_data(kFolder + "stories260K.bin")));
}

bool is_missing() { return shared_data(kFolder + "stories260K.bin").empty(); }

}  // namespace

TEST_CASE("stories260K: logits are the published ones, whole and decoded, one or eight at once",
          "[infer][stories]") {
  if (is_missing()) return;
  const at::NoGradGuard no_grad;
  const auto reference = read_reference();
  auto model = load_stories();
  for (const int64_t batch : {1, 8}) {
    const auto tokens = reference.prompt.expand({batch, 16}).contiguous();
    const auto whole = model(tokens, RoutingPolicy::all()).logits;
    auto cache = model->make_cache(batch, 16, at::kFloat);
    ForwardOptions options;
    options.cache = &cache;
    int64_t begin = 0;
    for (const int64_t seq : {5, 1, 1, 6, 1, 1, 1}) {
      const auto part = model(tokens.narrow(1, begin, seq), RoutingPolicy::all(), options).logits;
      cache.advance(seq);
      for (int64_t b = 0; b < batch; ++b) {
        CHECK(max_difference(part[b], reference.logits.narrow(0, begin, seq)) < 1e-4);
      }
      begin += seq;
    }
    for (int64_t b = 0; b < batch; ++b) {
      CHECK(max_difference(whole[b], reference.logits) < 1e-4);
    }
  }
}

TEST_CASE("stories260K: cut into 2 or 4 experts with gates at 1 it keeps the published logits",
          "[infer][stories]") {
  if (is_missing()) return;
  const at::NoGradGuard no_grad;
  const auto reference = read_reference();
  const auto dense = open_llama2c(posix_io(), shared_data(kFolder + "stories260K.bin"));
  for (const int64_t n_experts : {2, 4}) {
    auto model = instantiate(partition_ffn(dense, {.n_experts = n_experts}));
    const auto policy = RoutingPolicy::threshold(0.5);
    CHECK(max_difference(model(reference.prompt, policy).logits[0], reference.logits) > 1.0);
    model->force_gates(true);
    CHECK(max_difference(model(reference.prompt, policy).logits[0], reference.logits) < 1e-4);
  }
  CHECK_THROWS_WITH(partition_ffn(dense, {.n_experts = 8}),
                    Catch::Contains("n_experts = 8 does not divide the FFN width 172"));
}

TEST_CASE("stories260K: 200 greedy steps are the published ones, one or eight at once",
          "[infer][stories]") {
  if (is_missing()) return;
  const auto reference = read_reference();
  const auto ids = reference.json["greedy"]["ids"].get<std::vector<int32_t>>();
  const auto tokenizer = make_tokenizer(shared_data(kFolder + "tok512.model"), {});
  const std::string text =
      read_file(posix_io(), shared_data(kFolder + "expected_greedy_200_steps.txt"), 1 << 20);
  GenerateRequest request;
  request.prompt = {1};  // BOS alone
  request.max_tokens = static_cast<int64_t>(ids.size());
  for (const size_t batch : {1, 8}) {
    const auto requests = std::vector<GenerateRequest>(batch, request);
    for (const auto& completion : generate(load_stories(), *tokenizer, {}, requests).completions) {
      CHECK(completion.ids == ids);
      CHECK(completion.text.starts_with(text));
    }
  }
}

TEST_CASE("stories260K: 200 greedy steps without a cache are the published ones",
          "[infer][stories]") {
  if (is_missing()) return;
  const at::NoGradGuard no_grad;
  const auto expected = read_reference().json["greedy"]["ids"].get<std::vector<int64_t>>();
  auto model = load_stories();
  std::vector<int64_t> ids{1};
  for (const int64_t id : expected) {
    const auto output = model(at::tensor(ids, at::kLong).unsqueeze(0), RoutingPolicy::all());
    CHECK(output.logits[0][-1].argmax().item<int64_t>() == id);
    ids.push_back(id);
  }
}

}  // namespace dsmoe
