#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "model/experts/expert_backend.h"
#include "model/model_config.h"

namespace dsmoe {

/// The FFN experts of one layer, stored wide like the matrices of the dense baseline: expert i owns
/// the rows (up, gate) or columns (down) i * d_expert .. (i + 1) * d_expert. With one expert it is
/// the dense baseline.
class ExpertFfnImpl : public torch::nn::Module {
 public:
  ExpertFfnImpl(int64_t d_model,
                int64_t n_experts,
                int64_t d_expert,
                Activation activation,
                Biases biases);

  /// Returns the weighted sum of the outputs of the chosen experts; without a choice the plain FFN
  /// over the whole width. x [n_tokens, d_model], returns the same shape. Source: arXiv:2404.05567,
  /// section 3.2.
  at::Tensor forward(const at::Tensor& x,
                     const TokenChoice& choice = {},
                     const RoutingPolicy& policy = {}) {
    return run_experts({experts_, policy, choice}, x);
  }

  void pack(const PackOptions& options) { experts_.pack(options); }
  const Experts& experts() const { return experts_; }

 private:
  Experts experts_;
};
TORCH_MODULE(ExpertFfn);

}  // namespace dsmoe
