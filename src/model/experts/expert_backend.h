#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "csrc_kernels/dispatch/dispatch.h"
#include "csrc_kernels/token_choice/token_choice.h"
#include "model/linear.h"
#include "model/moe/routing_policy.h"

namespace dsmoe {

/// The projections of a layer's experts, stored wide: expert i is the block of rows (up, gate) or
/// columns (down) i * width .. (i + 1) * width. The bias of down is added once and never weighted.
struct Experts {
  Linear up{nullptr};    // [n_experts * width, d_model]: up_proj, or q_proj of attention experts
  Linear gate{nullptr};  // like up, kSwiglu only
  Linear down{nullptr};  // [d_model, n_experts * width]: down_proj or o_proj
  Activation activation = Activation::kIdentity;  // of attention experts
  int64_t n_experts = 1;
  int64_t d_model = 0;
  int64_t width = 0;

  void pack(const PackOptions& options);
  /// True if this pass uses packed weights: they exist and no gradient is recorded.
  bool is_packed() const { return up->runs_packed(); }
};

/// Purpose of a pass through experts.
enum class ExpertRole {
  kFfn,
  kAttention,  ///< hidden rows are queries; attention runs between hidden and sum
  kDecoding,   ///< attention of one token per sequence, over queries of every expert
};

/// One pass of tokens through the experts of a layer.
struct ExpertPass {
  const Experts& experts;
  RoutingPolicy policy{};
  TokenChoice choice{};  // undefined tensors: the one expert of a dense FFN
  ExpertRole role = ExpertRole::kFfn;
  Dispatch rows{};  // listed by the backend, if it computes rows
};

/// Result of ExpertBackend::hidden and input of sum: [n_rows, width], or [n_tokens, n_experts *
/// width] for wide backends. Attention reads the values as queries and replaces them by its output.
struct Hidden {
  at::Tensor values;
  at::Tensor gate{};  // not yet applied, like values; kSwiglu only
};

/// One way to compute the experts of a pass. For the same choice all backends give the same output.
///
/// gemv and packed_cpu apply activation and weights in hidden; the others apply them in sum, where
/// autograd keeps only their inputs. Attention experts are weighted in sum.
class ExpertBackend {
 public:
  virtual ~ExpertBackend() = default;
  /// True if a pass of x needs a host sync; such a pass cannot be recorded as a graph.
  virtual bool needs_host_sync(const at::Tensor& x) const = 0;
  /// Lists the rows to compute in pass.rows; wide backends list none.
  virtual void list(ExpertPass& pass, const at::Tensor& x) const = 0;
  /// x [n_tokens, d_model]
  virtual Hidden hidden(const ExpertPass& pass, const at::Tensor& x) const = 0;
  /// Returns [n_tokens, d_model] in the type of hidden.
  virtual at::Tensor sum(const ExpertPass& pass, const Hidden& hidden) const = 0;
};

/// Every expert in wide products; unselected ones are weighted by zero. With gradients.
const ExpertBackend& dense_backend();
/// Selected rows listed on the host, one product per expert. With gradients.
const ExpertBackend& grouped_backend();
/// Selected rows listed on the device, one grouped product over the row ends of the experts. With
/// gradients.
const ExpertBackend& device_rows_backend();
/// Matrix-vector products of few tokens on a device; hidden is wide, zero where not selected.
const ExpertBackend& gemv_backend();
/// Packed weights on the CPU; under dense execution every pair is a row.
const ExpertBackend& packed_cpu_backend();

/// The decision table: which backend runs a pass. x [n_tokens, d_model], or empty of that shape.
const ExpertBackend& choose_backend(const ExpertPass& pass, const at::Tensor& x);

/// True if the pass skips unselected experts; resolves kAuto.
bool runs_sparse(const ExpertPass& pass);

/// True if the choice or the backend of the pass needs a host sync. The pass has no choice yet.
bool needs_host_sync(const ExpertPass& pass, const at::Tensor& x);

/// Runs a whole pass of FFN experts. x [n_tokens, d_model]; returns the same shape.
at::Tensor run_experts(ExpertPass pass, const at::Tensor& x);

}  // namespace dsmoe
