#include "model/experts/expert_ffn.h"

namespace dsmoe {

ExpertFfnImpl::ExpertFfnImpl(int64_t d_model,
                             int64_t n_experts,
                             int64_t d_expert,
                             Activation activation,
                             Biases biases) {
  const int64_t d_wide = n_experts * d_expert;
  const bool inner = biases == Biases::kAll;
  experts_ = {.up = register_module("up_proj", Linear(d_model, d_wide, inner)),
              .activation = activation,
              .n_experts = n_experts,
              .d_model = d_model,
              .width = d_expert};
  if (n_inputs(activation) == 2) {
    experts_.gate = register_module("gate_proj", Linear(d_model, d_wide, inner));
  }
  experts_.down = register_module("down_proj", Linear(d_wide, d_model, biases != Biases::kNone));
}

}  // namespace dsmoe
