#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "model/linear.h"
#include "model/model_config.h"
#include "model/moe/expert_selection.h"

namespace dsmoe {

/// The FFN experts of one layer, stored wide as the dense twin's matrices: expert i owns the rows
/// (up, gate) or columns (down) i * d_expert .. (i + 1) * d_expert. With one expert it is that
/// twin.
///
/// The bias of down_proj, where there is one, is added once and never weighted.
class ExpertFfnImpl : public torch::nn::Module {
 public:
  ExpertFfnImpl(int64_t d_model,
                int64_t n_experts,
                int64_t d_expert,
                Activation activation,
                Biases biases);

  /// The plain FFN over the whole width. x [n_tokens, d_model], returns the same shape.
  at::Tensor forward(const at::Tensor& x);

  /// Every expert, two wide products: down((weights repeated d_expert times) * act(up x)).
  /// x [n_tokens, d_model], expert_weights [n_tokens, n_experts], float32 or wider; returns
  /// [n_tokens, d_model] in the type of x.
  /// Source: arXiv:2404.05567, section 3.2.
  at::Tensor forward_dense(const at::Tensor& x, const at::Tensor& expert_weights);

  /// The selected experts of each token only, however that is fastest where x is.
  /// x [n_tokens, d_model], returns the same shape.
  at::Tensor forward_sparse(const at::Tensor& x, const ExpertSelection& selection);
  /// Whether forward_sparse, without gradient, gives a device its work without waiting for it.
  bool runs_without_waiting(const at::Tensor& x) const;

  /// The listed (token, expert) pairs only, grouped by expert. x [n_tokens, d_model].
  at::Tensor forward_sparse(const at::Tensor& x, const ExpertDispatch& dispatch);

  void pack(const PackOptions& options);
  bool runs_packed() const { return up_proj_->runs_packed(); }
  /// Any selection over packed weights. x [n_tokens, d_model].
  at::Tensor forward_packed(const at::Tensor& x, const ExpertPairs& pairs);

  int64_t n_experts() const { return n_experts_; }
  /// Of the matrices of one expert.
  int64_t parameters_per_expert() const;

 private:
  bool runs_few(const at::Tensor& x) const;
  bool runs_routed(const at::Tensor& x, const ExpertSelection& selection) const;
  at::Tensor forward_routed(const at::Tensor& x, const ExpertSelection& selection);
  at::Tensor forward_few(const at::Tensor& x, const at::Tensor& expert_weights);
  at::Tensor run_wide(const at::Tensor& x, const at::Tensor& expert_weights);

  int64_t d_model_;
  int64_t n_experts_;
  int64_t d_expert_;
  Activation activation_;
  Linear up_proj_{nullptr};    // [n_experts * d_expert, d_model]
  Linear gate_proj_{nullptr};  // swiglu only, the same shape
  Linear down_proj_{nullptr};  // [d_model, n_experts * d_expert]
};
TORCH_MODULE(ExpertFfn);

}  // namespace dsmoe
