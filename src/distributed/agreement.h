#pragma once

#include <string>
#include <utility>
#include <vector>

#include "distributed/rank_group.h"

namespace dsmoe {

/// A value that must be equal on every rank, and its name; a value may have many lines.
using Agreement = std::vector<std::pair<std::string, std::string>>;

/// Compares the values of all ranks with rank 0's. Throws Error, on every rank, that names the
/// first rank, field and line that differ.
void check_agreement(RankGroup& ranks, const Agreement& fields);

}  // namespace dsmoe
