#pragma once

#include <cstdint>

#include "distributed/rank_group.h"
#include "model/named_tensors.h"

namespace dsmoe {

/// Compares a hash of every tensor over all ranks; finds flipped bits in memory and diverged ranks.
/// Throws RunError on every rank if a tensor differs, naming the first such tensor and the ranks in
/// the minority (of two ranks, rank 1).
void check_replicas(RankGroup& ranks, const NamedTensors& tensors, int64_t step);

}  // namespace dsmoe
