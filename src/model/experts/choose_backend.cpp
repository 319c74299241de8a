#include <ATen/core/grad_mode.h>

#include "csrc_kernels/expert_gemv/expert_gemv.h"
#include "csrc_kernels/grouped_linear/grouped_linear.h"
#include "model/experts/expert_backend.h"

namespace dsmoe {
namespace {

// A list has the length of the maximal number of rows. Only a pass without gradient can afford a
// list of all (token, expert) pairs.
bool lists_on_device(const ExpertPass& pass, const at::Tensor& x) {
  const auto& experts = pass.experts;
  return has_dispatch_kernels(x) &&
         (pass.choice.most_per_token > 0 || !at::GradMode::is_enabled()) &&
         takes_ends(x.scalar_type(), experts.d_model, experts.width);
}

}  // namespace

bool runs_sparse(const ExpertPass& pass) {
  const auto& experts = pass.experts;
  const auto& policy = pass.policy;
  if (policy.execution != Execution::kAuto) return policy.execution == Execution::kSparse;
  if (policy.selection == Selection::kAll) return false;
  if (policy.selection == Selection::kTopK && 2 * policy.k > experts.n_experts) return false;
  // Measured on 2 cores in float32, 1 to 2,048 tokens: sparse execution of experts of 65,536
  // parameters is faster at any number of tokens, that of experts of 18,432 at none.
  constexpr int64_t kLargeExpert = 40'000;
  return (n_inputs(experts.activation) + 1) * experts.d_model * experts.width >= kLargeExpert;
}

const ExpertBackend& choose_backend(const ExpertPass& pass, const at::Tensor& x) {
  if (pass.experts.is_packed()) return packed_cpu_backend();
  if (!runs_sparse(pass)) return dense_backend();
  if (pass.role != ExpertRole::kAttention && serves_expert_gemv(x)) return gemv_backend();
  if (pass.role == ExpertRole::kDecoding) return dense_backend();
  return lists_on_device(pass, x) ? device_rows_backend() : grouped_backend();
}

at::Tensor run_experts(ExpertPass pass, const at::Tensor& x) {
  const auto& backend = choose_backend(pass, x);
  backend.list(pass, x);
  return backend.sum(pass, backend.hidden(pass, x));
}

bool needs_host_sync(const ExpertPass& pass, const at::Tensor& x) {
  return choice_needs_host_sync(pass.policy.rule(1.0)) ||
         choose_backend(pass, x).needs_host_sync(x);
}

void Experts::pack(const PackOptions& options) {
  up->pack(options, n_experts);
  if (!gate.is_empty()) gate->pack(options, n_experts);
  down->pack(options, n_experts, ExpertAxis::kColumns);
}

}  // namespace dsmoe
