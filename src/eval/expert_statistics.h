#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "eval/eval_batches.h"
#include "model/model_output.h"

namespace dsmoe {

/// How many tokens selected the experts of one layer; all sums.
struct LayerSelections {
  std::vector<std::vector<int64_t>> together;        // [n_experts, n_experts], diagonal: alone
  std::map<int64_t, std::vector<int64_t>> by_token;  // id of the token -> [n_experts]
  std::vector<std::vector<int64_t>> by_group;        // [n_groups, n_experts]
};

/// A token that an expert takes more often than its share of all tokens.
struct TypicalToken {
  int64_t id = 0;
  int64_t count = 0;  ///< occurrences in the text
  double lift = 0;    ///< P(expert | token) / P(expert)
};

/// Divergence of the experts' loads between groups of texts, in one layer. Load: share of the
/// selections that each expert got. A group with few tokens diverges by chance: by about
/// (n_experts - 1) / (2 n) nats for n selections.
struct Specialisation {
  std::vector<double> kl;         ///< [n_groups] nats: KL(group's load || load of all)
  double mutual_information = 0;  ///< nats between group and expert: kl weighted by selections
};

/// Which experts go together, which tokens they take and which groups of texts, counted over the
/// scored tokens of forward passes.
class ExpertStatistics {
 public:
  /// Adds the tokens of one pass over the batch.
  void add(const ModelOutput& output, const EvalBatch& batch);
  /// Adds another's sums. Throws c10::Error if they are of another model.
  void add(const ExpertStatistics& other);

  int64_t n_tokens() const { return n_tokens_; }
  /// Scored tokens of each group.
  const std::vector<int64_t>& tokens_of_groups() const { return tokens_of_groups_; }
  /// By layer; empty for a kind that the model lacks.
  const std::vector<LayerSelections>& moe() const { return moe_; }
  const std::vector<LayerSelections>& moa() const { return moa_; }

  /// [n_experts, n_experts]: how often two are selected by one token, relative to independent
  /// selection, n_ij n / (n_i n_j); NaN where one is never selected.
  std::vector<std::vector<double>> co_activation(const LayerSelections& layer) const;

  /// The tokens of highest lift, at most `limit`, of those that occur at least `min_count` times;
  /// of equal lift the more frequent, then the smaller id.
  std::vector<TypicalToken> typical_tokens(const LayerSelections& layer,
                                           size_t expert,
                                           size_t limit,
                                           int64_t min_count) const;

 private:
  int64_t n_tokens_ = 0;
  std::vector<int64_t> tokens_of_groups_;
  std::map<int64_t, int64_t> occurrences_;  // of a token id
  std::vector<LayerSelections> moe_;
  std::vector<LayerSelections> moa_;
};

/// Throws c10::Error if nothing was selected.
Specialisation specialisation(const LayerSelections& layer);

}  // namespace dsmoe
