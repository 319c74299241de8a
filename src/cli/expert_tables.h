#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "eval/expert_statistics.h"

namespace dsmoe {

struct ExpertReport {
  struct Group {
    std::string data;    ///< path
    int64_t tokens = 0;  ///< scored
  };
  struct Typical {
    TypicalToken token;
    std::string text;
  };
  struct Expert {
    double share = 0;  ///< of the tokens
    std::vector<Typical> typical;
  };
  struct Layer {
    std::vector<std::vector<double>> co_activation;  ///< NaN: one is never selected
    std::vector<Expert> experts;
    std::optional<Specialisation> specialisation;  ///< of several groups
  };
  std::vector<Group> groups;
  std::vector<Layer> moe;
  std::vector<Layer> moa;
};

/// groups: paths of the texts.
ExpertReport make_expert_report(const ExpertStatistics& statistics,
                                const std::vector<std::string>& groups,
                                const Tokenizer& tokenizer);

/// `groups` with their scored tokens, `min_count`, and for each kind of experts a list of layers
/// with `co_activation`, `experts` (`share`, `typical` tokens), and, of several groups, `group_kl`
/// and `mutual_information`.
nlohmann::ordered_json to_json(const ExpertReport& report);

/// The same as tables on standard output: of the pairs the most unlike chance alone.
void print_text(const ExpertReport& report);

}  // namespace dsmoe
