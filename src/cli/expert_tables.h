#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "eval/expert_statistics.h"

namespace dsmoe {

/// `groups` with their scored tokens, `min_count`, and for each kind of experts a list of layers
/// with `co_activation` (null: one is never selected), `experts` (`share` of the tokens, `typical`
/// tokens), and, of several groups, `group_kl` and `mutual_information`.
nlohmann::ordered_json expert_statistics_to_json(const ExpertStatistics& statistics,
                                                 const std::vector<std::string>& groups,
                                                 const Tokenizer& tokenizer);

/// The same as tables on standard output: of the pairs the most unlike chance alone.
void print_expert_statistics(const nlohmann::ordered_json& json);

}  // namespace dsmoe
