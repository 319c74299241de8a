#pragma once

#include <string>
#include <utility>
#include <vector>

#include "distributed/rank_group.h"

namespace dsmoe {

/// What every rank must have alike, and its value here; a value may have many lines.
using Agreement = std::vector<std::pair<std::string, std::string>>;

/// Compares the values of all ranks with rank 0's. Throws Error, on every rank, that names the
/// first rank, field and line that differ.
void check_agreement(RankGroup& ranks, const Agreement& fields);

}  // namespace dsmoe
