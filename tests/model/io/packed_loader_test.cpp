#include "model/io/packed_loader.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <sys/prctl.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>

#include "model/io/checkpoint_writer.h"
#include "model/io/model_source.h"
#include "model/module_testing.h"
#include "support/mapped_resident.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

// Some 50 MiB in float32, most of it experts.
ModelConfig config_of(bool tied) {
  ModelConfig config;
  config.vocab_size = 5003;
  config.d_model = 256;
  config.n_layers = 3;
  config.max_seq_len = 32;
  config.tie_embeddings = tied;
  config.attention.kind = AttentionKind::kDense;
  config.attention.head_dim = 32;
  config.attention.n_heads = 8;
  config.attention.n_kv_heads = 2;
  config.ffn.activation = Activation::kSwiglu;
  config.ffn.n_experts = 20;
  config.ffn.d_expert = 208;
  return config;
}

VerifiedCheckpoint write_checkpoint(const TemporaryDirectory& directory, Transformer& model) {
  ModelSource source{model->config(), {}};
  for (const auto& [name, tensor] : named_tensors(*model)) {
    source.tensors.push_back(
        {name, tensor.sizes().vec(), [tensor = tensor] { return tensor.detach().contiguous(); }});
  }
  const auto out = directory.file("checkpoint");
  write_converted(posix_io(), {out}, source, {});
  return find_checkpoint(posix_io(), out);
}

}  // namespace

TEST_CASE("load_packed_model: equals load_model and pack_weights bit for bit", "[model][packed]") {
  const at::NoGradGuard no_grad;
  const TemporaryDirectory directory;
  const auto tokens = at::arange(24, at::kLong).view({2, 12});
  for (const bool tied : {false, true}) {
    Transformer model(config_of(tied));
    randomise(*model, 3, 0.1);
    const TemporaryDirectory own;
    const auto checkpoint = write_checkpoint(own, model);
    for (const auto format :
         {PackedFormat::kFloat32, PackedFormat::kBfloat16, PackedFormat::kInt8}) {
      auto expected = load_model(posix_io(), checkpoint);
      pack_weights(expected, {.format = format});
      auto loaded = load_packed_model(posix_io(), checkpoint, {.format = format});
      CHECK_FALSE(loaded->is_training());
      CHECK(at::equal(loaded->forward(tokens, RoutingPolicy::top_k(3)).logits,
                      expected->forward(tokens, RoutingPolicy::top_k(3)).logits));
      CHECK(weight_memory_bytes(loaded) == weight_memory_bytes(expected));
    }
  }
}

TEST_CASE("load_packed_model: at most 1.15 of the packed weights is in memory at once",
          "[model][packed]") {
  const TemporaryDirectory directory;
  VerifiedCheckpoint checkpoint;
  {
    Transformer model(config_of(false));
    randomise(*model, 3, 0.1);
    checkpoint = write_checkpoint(directory, model);
  }
  // Runs once before, so that first-use allocations are not counted as weights.
  load_packed_model(posix_io(), checkpoint, {.format = PackedFormat::kBfloat16});
  // The system may round memory up to huge pages.
  REQUIRE(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
  const int64_t before = mapped_resident_bytes();
  int64_t peak = before;
  // Memory has its peak before a packed part is dropped.
  const auto model = load_packed_model(
      posix_io(),
      checkpoint,
      {.format = PackedFormat::kBfloat16,
       .on_read = [&](const void*, size_t) { peak = std::max(peak, mapped_resident_bytes()); }});
  prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
  const auto used = static_cast<double>(peak - before);
  const auto packed = static_cast<double>(weight_memory_bytes(model));
  INFO(used / (1 << 20) << " MiB for weights of " << packed / (1 << 20));
  CHECK(packed > 25e6);
  CHECK(used > 0.8 * packed);  // else it was not seen
  CHECK(used < 1.15 * packed);
}

}  // namespace dsmoe
