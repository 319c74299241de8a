#include "csrc_kernels/causal_attention/causal_attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <type_traits>

#include "csrc_kernels/common/tensors.h"

namespace dsmoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kName = "causal_attention";

// Calls function.operator()<T, B, W>(): type of the tensors, of the blocks and of the sums.
template <typename Function>
void dispatch_block_types(at::ScalarType type, BlockProducts products, Function&& function) {
  dispatch_float_types(kName, type, [&]<typename T, typename W>() {
    if constexpr (std::is_same_v<T, Bfloat16>) {
      if (products != BlockProducts::kBfloat16) {
        return function.template operator()<T, float, float>();
      }
    }
    return function.template operator()<T, T, W>();
  });
}

// Divides the heads of a [batch, seq, heads, head_dim] tensor among key/value heads.
struct HeadGroups {
  int64_t n_kv_heads;
  int64_t group;      // query heads of a key/value head
  int64_t head_step;  // distance of two of them

  HeadGroups(const at::Tensor& q, const at::Tensor& k, HeadLayout layout)
      : n_kv_heads(k.size(2)),
        group(q.size(2) / n_kv_heads),
        head_step(layout == HeadLayout::kKvMajor ? 1 : n_kv_heads) {}

  int64_t first_head(int64_t kv_head) const { return head_step == 1 ? kv_head * group : kv_head; }
};

template <typename T>
HeadRows<T> head_rows(const at::Tensor& x,
                      int64_t sequence,
                      int64_t first_head,
                      int64_t head_step) {
  auto* data = static_cast<T*>(x.data_ptr());
  return {.data = data + sequence * x.stride(0) + first_head * x.stride(2),
          .head_stride = head_step * x.stride(2),
          .row_stride = x.stride(1)};
}

// One key/value head of one sequence and its query heads.
struct WorkItem {
  int64_t sequence;
  int64_t kv_head;
  int64_t first_head;
  int64_t head_step;
  void* scratch;

  template <typename T>
  HeadRows<T> queries(const at::Tensor& x) const {
    return head_rows<T>(x, sequence, first_head, head_step);
  }
  template <typename T>
  HeadRows<T> keys(const at::Tensor& x) const {
    return head_rows<T>(x, sequence, kv_head, 1);
  }
};

// Calls work(item) for every item, in parallel; items write disjoint memory.
template <typename Work>
void for_each_item(int64_t batch,
                   const HeadGroups& heads,
                   int64_t scratch_bytes,
                   BlockProducts products,
                   const Work& work) {
  const int64_t n_items = batch * heads.n_kv_heads;
  const int64_t n_threads = std::min<int64_t>(at::get_num_threads(), n_items);
  const auto scratch = at::empty({n_threads, scratch_bytes}, at::TensorOptions().dtype(at::kByte));
  at::parallel_for(0, n_items, 1, [&](int64_t begin, int64_t end) {
    auto* mine = scratch.mutable_data_ptr<uint8_t>() + at::get_thread_num() * scratch_bytes;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t kv_head = i % heads.n_kv_heads;
      work(WorkItem{.sequence = i / heads.n_kv_heads,
                    .kv_head = kv_head,
                    .first_head = heads.first_head(kv_head),
                    .head_step = heads.head_step,
                    .scratch = mine});
    }
    release_block_products(products);
  });
}

struct Tensors {
  at::Tensor q;
  at::Tensor k;
  at::Tensor v;
  at::Tensor y;
  at::Tensor log_sums;  // [batch, n_kv_heads, group, n_queries]
};

// Allocates the results.
Tensors make_tensors(const at::Tensor& q,
                     const at::Tensor& k,
                     const at::Tensor& v,
                     const HeadGroups& heads) {
  const auto wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return {.q = q,
          .k = k,
          .v = v,
          .y = at::empty(q.sizes(), q.options()),
          .log_sums = at::empty({q.size(0), heads.n_kv_heads, heads.group, q.size(1)},
                                q.options().dtype(wide))};
}

void run_forward(const Tensors& at, const HeadGroups& heads, BlockProducts products) {
  const AttentionShape shape{.seq = at.k.size(1),
                             .n_query_heads = heads.group,
                             .head_dim = at.q.size(3),
                             .first_query = at.k.size(1) - at.q.size(1)};
  dispatch_block_types(at.q.scalar_type(), products, [&]<typename T, typename B, typename W>() {
    const auto product = block_product<B, W>(products);
    const auto& kernels = cpu_kernels<CausalForwardKernels<T, B, W>>();
    const int64_t n_bytes = kernels.scratch_bytes(shape);
    for_each_item(at.q.size(0), heads, n_bytes, products, [&](const WorkItem& item) {
      const AttentionForward<T, W> tensors{
          .q = item.queries<const T>(at.q),
          .k = item.keys<const T>(at.k),
          .v = item.keys<const T>(at.v),
          .y = item.queries<T>(at.y),
          .log_sums = at.log_sums[item.sequence][item.kv_head].mutable_data_ptr<W>()};
      kernels.run(shape, tensors, product, item.scratch);
    });
  });
}

struct Gradients {
  at::Tensor q;
  at::Tensor k;
  at::Tensor v;
};

Gradients run_backward(const Tensors& at,
                       const at::Tensor& grad_y,
                       const HeadGroups& heads,
                       BlockProducts products) {
  const AttentionShape shape{
      .seq = at.q.size(1), .n_query_heads = heads.group, .head_dim = at.q.size(3)};
  Gradients gradients{.q = at::empty(at.q.sizes(), at.q.options()),
                      .k = at::empty(at.k.sizes(), at.k.options()),
                      .v = at::empty(at.v.sizes(), at.v.options())};
  dispatch_block_types(at.q.scalar_type(), products, [&]<typename T, typename B, typename W>() {
    const auto product = block_product<B, W>(products);
    const auto& kernels = cpu_kernels<CausalBackwardKernels<T, B, W>>();
    const int64_t n_bytes = kernels.scratch_bytes(shape);
    for_each_item(at.q.size(0), heads, n_bytes, products, [&](const WorkItem& item) {
      const AttentionBackward<T, W> tensors{
          .q = item.queries<const T>(at.q),
          .k = item.keys<const T>(at.k),
          .v = item.keys<const T>(at.v),
          .y = item.queries<const T>(at.y),
          .log_sums = at.log_sums[item.sequence][item.kv_head].const_data_ptr<W>(),
          .grad_y = item.queries<const T>(grad_y),
          .grad_q = item.queries<T>(gradients.q),
          .grad_k = item.keys<T>(gradients.k),
          .grad_v = item.keys<T>(gradients.v)};
      kernels.run(shape, tensors, product, item.scratch);
    });
  });
  return gradients;
}

struct CausalAttention : torch::autograd::Function<CausalAttention> {
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            int64_t layout,
                            int64_t products) {
    const HeadGroups heads(q, k, static_cast<HeadLayout>(layout));
    const auto tensors = make_tensors(q, k, v, heads);
    run_forward(tensors, heads, static_cast<BlockProducts>(products));
    ctx->save_for_backward({q, k, v, tensors.y, tensors.log_sums});
    ctx->saved_data["layout"] = layout;
    ctx->saved_data["products"] = products;
    return tensors.y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensors tensors{saved[0], saved[1], saved[2], saved[3], saved[4]};
    const auto layout = static_cast<HeadLayout>(ctx->saved_data["layout"].toInt());
    const auto products = static_cast<BlockProducts>(ctx->saved_data["products"].toInt());
    const auto grad_y = grads[0].stride(3) == 1 ? grads[0] : grads[0].contiguous();
    const auto gradients =
        run_backward(tensors, grad_y, HeadGroups(tensors.q, tensors.k, layout), products);
    return {gradients.q, gradients.k, gradients.v, at::Tensor(), at::Tensor()};
  }
};

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes() && q.size(0) == k.size(0) &&
                  q.size(1) <= k.size(1) && q.size(3) == k.size(3) && q.numel() > 0,
              kName,
              ": expected q [batch, seq, n_heads, head_dim], k and v [batch, seq, n_kv_heads, "
              "head_dim], not empty, got ",
              q.sizes(),
              ", ",
              k.sizes(),
              ", ",
              v.sizes());
  TORCH_CHECK(k.size(2) > 0 && q.size(2) % k.size(2) == 0,
              kName,
              ": expected n_kv_heads that divide ",
              q.size(2),
              " heads, got ",
              k.size(2));
  TORCH_CHECK(q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type(),
              kName,
              ": expected one type, got ",
              q.scalar_type(),
              ", ",
              k.scalar_type(),
              ", ",
              v.scalar_type());
  for (const auto& x : {q, k, v}) {
    TORCH_CHECK(x.stride(3) == 1 || x.size(3) == 1,
                kName,
                ": expected a contiguous last dimension, got strides ",
                x.strides(),
                "; call contiguous()");
  }
}

// Attention on another device than the CPU, by ATen, which keeps no matrix of scores either.
at::Tensor fused_attention(const at::Tensor& q,
                           const at::Tensor& k,
                           const at::Tensor& v,
                           HeadLayout layout) {
  const int64_t group = q.size(2) / k.size(2);
  // [batch, seq, n_kv_heads, head_dim] -> [batch, n_heads, seq, head_dim]
  const auto per_query_head = [&](const at::Tensor& x) {
    const auto repeated =
        layout == HeadLayout::kKvMajor ? x.repeat_interleave(group, 2) : x.repeat({1, 1, group, 1});
    return repeated.transpose(1, 2);
  };
  return at::scaled_dot_product_attention(q.transpose(1, 2),
                                          per_query_head(k),
                                          per_query_head(v),
                                          /*attn_mask=*/{},
                                          /*dropout_p=*/0.0,
                                          /*is_causal=*/true)
      .transpose(1, 2)
      .contiguous();
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            HeadLayout layout,
                            BlockProducts products) {
  check(q, k, v);
  TORCH_CHECK(q.size(1) == k.size(1),
              kName,
              ": expected as many keys as the ",
              q.size(1),
              " queries, got ",
              k.size(1));
  if (!q.is_cpu()) return fused_attention(q, k, v, layout);
  return CausalAttention::apply(
      q, k, v, static_cast<int64_t>(layout), static_cast<int64_t>(products));
}

at::Tensor continued_attention(const at::Tensor& q,
                               const at::Tensor& k,
                               const at::Tensor& v,
                               HeadLayout layout) {
  TORCH_CHECK(q.dim() == 3 && k.dim() == 3 && v.dim() == 3,
              kName,
              ": expected q, k and v of one sequence, got ",
              q.sizes());
  const auto keys = k.transpose(0, 1).unsqueeze(0);    // [1, n_keys, n_kv_heads, head_dim]
  const auto values = v.transpose(0, 1).unsqueeze(0);  // the same
  // Pads queries in front, so that blocks begin at the same positions as in the whole sequence.
  const int64_t n_before = (k.size(1) - q.size(0)) % kQueryBlock;
  const auto before = at::zeros({n_before, q.size(1), q.size(2)}, q.options());
  const auto queries =
      (n_before == 0 ? q : at::cat({before, q})).unsqueeze(0);  // [1, n, n_heads, head_dim]
  check(queries, keys, values);
  const HeadGroups heads(queries, keys, layout);
  const auto tensors = make_tensors(queries, keys, values, heads);
  run_forward(tensors, heads, fastest_block_products());
  return tensors.y.squeeze(0).narrow(0, n_before, q.size(0));
}

}  // namespace dsmoe
