#include "csrc_kernels/decode_attention/decode_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "csrc_kernels/common/tensors.h"
#include "csrc_kernels/decode_attention/kernels.h"
#include "csrc_kernels/rotary/rotary.h"

namespace dsmoe {
namespace {

void check_cache(const char* name, const DecodeCache& cache) {
  TORCH_CHECK(cache.keys.dim() == 4 && cache.keys.is_contiguous() &&
                  cache.values.sizes() == cache.keys.sizes() && cache.values.is_contiguous() &&
                  cache.values.scalar_type() == cache.keys.scalar_type() &&
                  cache.keys.size(3) % 2 == 0,
              name,
              ": expected keys and values [batch, n_kv_heads, capacity, head_dim], contiguous, "
              "head_dim even, got ",
              cache.keys.sizes(),
              " and ",
              cache.values.sizes());
  TORCH_CHECK(cache.positions.sizes() == cache.keys.sizes().slice(0, 1) &&
                  cache.positions.scalar_type() == at::kLong && cache.positions.is_contiguous(),
              name,
              ": expected positions [",
              cache.keys.size(0),
              "] int64, got ",
              cache.positions.sizes());
}

void check_tables(const char* name, const DecodeCache& cache, const RotaryTables& tables) {
  if (!tables.cos.defined()) return;
  for (const auto* table : {&tables.cos, &tables.sin}) {
    TORCH_CHECK(table->dim() == 2 && table->size(0) == cache.keys.size(0) &&
                    table->size(1) == cache.keys.size(3) / 2 && table->is_contiguous() &&
                    table->scalar_type() == at::kFloat,
                name,
                ": expected tables [",
                cache.keys.size(0),
                ", ",
                cache.keys.size(3) / 2,
                "] float32, contiguous, got ",
                table->sizes());
  }
}

void check_heads(const char* name, const DecodeCache& cache, const at::Tensor& heads) {
  TORCH_CHECK(heads.dim() == 3 && heads.size(0) == cache.keys.size(0) &&
                  heads.size(1) % cache.keys.size(1) == 0 && heads.size(2) == cache.keys.size(3) &&
                  heads.is_contiguous() && heads.scalar_type() == cache.keys.scalar_type(),
              name,
              ": expected heads [",
              cache.keys.size(0),
              ", n, ",
              cache.keys.size(3),
              "] of type ",
              cache.keys.scalar_type(),
              ", contiguous, got ",
              heads.sizes());
}

}  // namespace

bool has_decode_attention_kernels(const at::Tensor& keys) {
  const auto type = keys.scalar_type();
  return !keys.is_cpu() && device_kernels<DecodeAttentionKernels<float>>().attend != nullptr &&
         (type == at::kFloat || type == at::kBFloat16) && keys.size(3) <= kMostDecodeHeadDim;
}

void append_token(const DecodeCache& cache,
                  const at::Tensor& k,
                  const at::Tensor& v,
                  const RotaryTables& tables) {
  constexpr const char* kName = "append_token";
  check_cache(kName, cache);
  check_tables(kName, cache, tables);
  for (const auto* heads : {&k, &v}) {
    check_heads(kName, cache, *heads);
    TORCH_CHECK(heads->size(1) == cache.keys.size(1), kName, ": expected key/value heads");
  }
  TORCH_CHECK(has_decode_attention_kernels(cache.keys), kName, ": expected a device with kernels");
  dispatch_row_types(kName, k.scalar_type(), [&]<typename T>() {
    device_kernels<DecodeAttentionKernels<T>>().append(
        {.batch = k.size(0),
         .n_kv_heads = k.size(1),
         .capacity = cache.keys.size(2),
         .head_dim = k.size(2),
         .k = pointer<const T>(k),
         .v = pointer<const T>(v),
         .cos = pointer<const float>(tables.cos),
         .sin = pointer<const float>(tables.sin),
         .positions = pointer<const int64_t>(cache.positions),
         .keys = pointer<T>(cache.keys),
         .values = pointer<T>(cache.values)});
  });
}

at::Tensor decode_attention(const DecodeCache& cache,
                            const at::Tensor& q,
                            HeadLayout layout,
                            const RotaryTables& tables,
                            const at::Tensor& expert_weights) {
  constexpr const char* kName = "decode_attention";
  check_cache(kName, cache);
  check_tables(kName, cache, tables);
  check_heads(kName, cache, q);
  const int64_t n_kv_heads = cache.keys.size(1);
  const int64_t n_groups = q.size(1) / n_kv_heads;
  TORCH_CHECK(!expert_weights.defined() ||
                  (layout == HeadLayout::kExpertMajor && expert_weights.dim() == 2 &&
                   expert_weights.size(0) == q.size(0) && expert_weights.size(1) == n_groups &&
                   expert_weights.scalar_type() == at::kFloat && expert_weights.is_contiguous()),
              kName,
              ": expected expert_weights [",
              q.size(0),
              ", ",
              n_groups,
              "] float32 for heads in the order of experts");
  if (!has_decode_attention_kernels(cache.keys)) {
    return decode_attention_ref(cache, q, layout, tables, expert_weights);
  }
  auto y = at::empty_like(q);
  const int64_t n_tiles = decode_tiles(cache.keys.size(2));
  const auto partial =
      at::empty({q.size(0), q.size(1), n_tiles, q.size(2) + 2}, q.options().dtype(at::kFloat));
  dispatch_row_types(kName, q.scalar_type(), [&]<typename T>() {
    device_kernels<DecodeAttentionKernels<T>>().attend(
        {.batch = q.size(0),
         .n_kv_heads = n_kv_heads,
         .n_groups = n_groups,
         .capacity = cache.keys.size(2),
         .head_dim = q.size(2),
         .by_expert = layout == HeadLayout::kExpertMajor,
         .q = pointer<const T>(q),
         .keys = pointer<const T>(cache.keys),
         .values = pointer<const T>(cache.values),
         .cos = pointer<const float>(tables.cos),
         .sin = pointer<const float>(tables.sin),
         .positions = pointer<const int64_t>(cache.positions),
         .weights = pointer<const float>(expert_weights),
         .partial = pointer<float>(partial),
         .y = pointer<T>(y)});
  });
  return y;
}

}  // namespace dsmoe
