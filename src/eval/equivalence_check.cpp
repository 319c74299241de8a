#include "eval/equivalence_check.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>

#include "common/error.h"
#include "common/random_seed.h"
#include "eval/evaluation_mode.h"
#include "model/linear.h"
#include "model/named_tensors.h"

namespace dsmoe {
namespace {

constexpr double kTolerance = 1e-5;
constexpr double kDeadShare = 0.01;
constexpr double kSameDirection = 0.999;

constexpr int64_t kSequences = 4;  // of the tokens to check with

int64_t check_length(const ModelConfig& config) {
  return std::min<int64_t>(config.max_seq_len, 64);
}

double max_abs(const at::Tensor& tensor) { return tensor.abs().max().item<double>(); }

// Dense everywhere but in the layers from `first` to before `last`.
RoutingPlan sparse_in(const RoutingPlan& plan, size_t n_layers, size_t first, size_t last) {
  std::vector<LayerRouting> layers;
  for (size_t i = 0; i < n_layers; ++i) {
    const auto execution = i >= first && i < last ? Execution::kSparse : Execution::kDense;
    layers.push_back(plan.with(execution).layer(i));
  }
  return RoutingPlan(std::move(layers));
}

// first_matrix [n_experts * rows, columns]
std::vector<DuplicateExperts> find_duplicates(const at::Tensor& first_matrix, int64_t n_experts) {
  const auto rows = first_matrix.detach().view({n_experts, -1}).to(at::kDouble);
  const auto norms = at::linalg_vector_norm(rows, 2, {1}, true).clamp_min(1e-30);
  const auto cosines = at::matmul(rows / norms, (rows / norms).t()).contiguous();
  std::vector<DuplicateExperts> duplicates;
  for (int64_t i = 0; i < n_experts; ++i) {
    for (int64_t j = i + 1; j < n_experts; ++j) {
      const double cosine = cosines.const_data_ptr<double>()[i * n_experts + j];
      if (cosine > kSameDirection) duplicates.push_back({i, j, cosine});
    }
  }
  return duplicates;
}

std::vector<int64_t> dead_experts(const RoutingRecord& record) {
  const int64_t n_experts = record.router_probs.size(-1);
  const auto mean =
      record.router_probs.detach().flatten(0, 1).mean(0, false, at::kDouble).contiguous();
  const double equal_share = mean.sum().item<double>() / static_cast<double>(n_experts);
  std::vector<int64_t> dead;
  for (int64_t i = 0; i < n_experts; ++i) {
    if (mean.const_data_ptr<double>()[i] < kDeadShare * equal_share) dead.push_back(i);
  }
  return dead;
}

ExpertHealth health_of(const RoutingRecord& record,
                       const at::Tensor& first_matrix,
                       bool on_random_tokens) {
  ExpertHealth health{.dead = {},
                      .duplicates = find_duplicates(first_matrix, record.router_probs.size(-1))};
  if (!on_random_tokens) health.dead = dead_experts(record);
  return health;
}

at::Tensor find_parameter(const NamedTensors& parameters, const std::string& name) {
  for (const auto& [its_name, parameter] : parameters) {
    if (its_name == name) return parameter;
  }
  TORCH_CHECK(false, "equivalence check: expected a parameter ", name);
}

// Of (token, layer), how many and how many alike.
std::pair<double, double> count_agreement(const std::vector<RoutingRecord>& a,
                                          const std::vector<RoutingRecord>& b) {
  double n_equal = 0;
  double n_all = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto equal = at::eq(a[i].selected, b[i].selected).all(-1);
    n_equal += equal.sum().item<double>();
    n_all += static_cast<double>(equal.numel());
  }
  return {n_equal, n_all};
}

double agreement(const ModelOutput& a, const ModelOutput& b) {
  const auto [moe_equal, moe_all] = count_agreement(a.moe, b.moe);
  const auto [moa_equal, moa_all] = count_agreement(a.moa, b.moa);
  return moe_all + moa_all > 0 ? (moe_equal + moa_equal) / (moe_all + moa_all) : 1.0;
}

}  // namespace

bool CheckReport::passes() const {
  // Written so that a NaN fails.
  const auto is_close = [this](double error) { return error <= tolerance; };
  return non_finite.empty() && is_close(max_abs_error) &&
         std::all_of(layers.begin(), layers.end(), [&](const LayerCheck& layer) {
           return is_close(layer.max_abs_error);
         });
}

CheckReport check_equivalence(Transformer& model,
                              const CheckTokens& tokens,
                              const RoutingPlan& plan) {
  const at::NoGradGuard no_grad;
  const EvaluationMode mode(*model);
  const auto n_layers = static_cast<size_t>(model->config().n_layers);
  const auto run = [&](size_t first, size_t last, at::ScalarType type) {
    return model->forward(
        tokens.ids, sparse_in(plan, n_layers, first, last), {.compute_dtype = type});
  };
  const auto parameters = named_parameters(*model);
  CheckReport report;
  report.on_random_tokens = tokens.are_random;
  for (const auto& [name, parameter] : parameters) {
    if (!at::isfinite(parameter).all().item<bool>()) report.non_finite.push_back(name);
  }
  const auto dense = run(0, 0, at::kFloat);
  const auto error = [&](size_t first, size_t last) {
    return max_abs(run(first, last, at::kFloat).logits - dense.logits);
  };
  report.max_abs_logit = max_abs(dense.logits);
  report.tolerance = kTolerance * std::max(report.max_abs_logit, 1.0);
  report.max_abs_error = error(0, n_layers);
  for (size_t i = 0; i < n_layers; ++i) {
    auto& layer = report.layers.emplace_back();
    layer.max_abs_error = error(i, i + 1);
    const auto matrix = [&](const char* name) {
      return find_parameter(parameters, fmt::format("blocks_{}.{}", i, name));
    };
    if (!dense.moe.empty()) {
      layer.moe = health_of(dense.moe[i], matrix("moe.experts.up_proj.weight"), tokens.are_random);
    }
    if (!dense.moa.empty()) {
      layer.moa = health_of(dense.moa[i], matrix("moa.q_proj.weight"), tokens.are_random);
    }
  }
  report.bfloat16_agreement = agreement(dense, run(0, 0, at::kBFloat16));
  return report;
}

RoutingPlan default_check_plan(const ModelConfig& config) {
  auto plan = parse_routing_plan(config.training_policy);
  if (!(plan == RoutingPlan(RoutingPolicy::all()))) return plan;
  LayerRouting routing;
  if (config.has_ffn_experts()) {
    routing.moe = RoutingPolicy::top_k((config.ffn.n_experts + 3) / 4);
  }
  if (config.attention.kind == AttentionKind::kMoa) {
    routing.moa = RoutingPolicy::top_k((config.attention.n_experts + 1) / 2);
  }
  return RoutingPlan(routing);
}

CheckTokens check_tokens(const EvalText& text,
                         const ModelConfig& config,
                         const std::string& source) {
  const auto& sequence = text.sequences.front();
  const int64_t seq = check_length(config);
  if (static_cast<int64_t>(sequence.size()) < kSequences * seq) {
    throw Error(
        fmt::format("{}: expected {} tokens, got {}", source, kSequences * seq, sequence.size()));
  }
  const std::vector<int64_t> ids(sequence.begin(), sequence.begin() + kSequences * seq);
  return {at::tensor(ids, at::kLong).view({kSequences, seq})};
}

CheckTokens random_check_tokens(const ModelConfig& config) {
  const int64_t seq = check_length(config);
  std::vector<int64_t> ids;
  for (uint64_t i = 0; i < static_cast<uint64_t>(kSequences * seq); ++i) {
    const auto draw = mix_bits(i) >> 33;
    ids.push_back(static_cast<int64_t>(draw % static_cast<uint64_t>(config.vocab_size)));
  }
  return {at::tensor(ids, at::kLong).view({kSequences, seq}), /*are_random=*/true};
}

}  // namespace dsmoe
