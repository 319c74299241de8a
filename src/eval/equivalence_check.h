#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eval/eval_text.h"
#include "model/transformer.h"

namespace dsmoe {

/// Two experts of one layer whose first matrices point the same way.
struct DuplicateExperts {
  int64_t first = 0;
  int64_t second = 0;
  double cosine = 0;
};

/// Of one kind of experts in one layer.
struct ExpertHealth {
  /// Experts with a mean router_prob below a hundredth of an equal share. None on random tokens:
  /// a router may leave an expert out there that text uses.
  std::optional<std::vector<int64_t>> dead;
  std::vector<DuplicateExperts> duplicates;  ///< cosine above 0.999
};

struct LayerCheck {
  double max_abs_error = 0;  ///< of the logits, with sparse execution in this layer alone
  ExpertHealth moe;
  ExpertHealth moa;
};

/// Differences between sparse and dense execution of one model.
struct CheckReport {
  bool on_random_tokens = false;
  double max_abs_logit = 0;
  double max_abs_error = 0;  ///< of the logits, with sparse execution everywhere
  double tolerance = 0;      ///< 1e-5 of the largest logit, or of 1
  std::vector<LayerCheck> layers;
  /// Share of (token, layer, kind) for which bfloat16 products choose the same experts.
  double bfloat16_agreement = 1;
  std::vector<std::string> non_finite;  ///< parameters that hold a NaN or Inf

  /// Finite weights, and no error above the tolerance. Dead and duplicate experts are for the
  /// reader to judge.
  bool passes() const;
};

/// The training selection where it leaves experts out, else a quarter of the FFN experts and half
/// of the attention experts.
RoutingPlan default_check_plan(const ModelConfig& config);

/// Tokens to check with.
struct CheckTokens {
  at::Tensor ids;  // [batch, seq] int64
  bool are_random = false;
};

/// Returns 4 sequences of at most 64 positions: the beginning of a text, or random ones, the same
/// for the same model. Throws Error naming `source` if the text is too short.
CheckTokens check_tokens(const EvalText& text,
                         const ModelConfig& config,
                         const std::string& source);
CheckTokens random_check_tokens(const ModelConfig& config);

/// The model's weights are float32 and not packed, because packed ones have one execution only.
/// `plan` selects the experts; its execution is ignored.
CheckReport check_equivalence(Transformer& model,
                              const CheckTokens& tokens,
                              const RoutingPlan& plan);

}  // namespace dsmoe
