#pragma once

#include <cstdint>

#include "distributed/rank_group.h"
#include "model/named_tensors.h"

namespace dsmoe {

/// Compares a hash of every tensor over all ranks, which must hold the same bits: finds a flipped
/// bit in memory and ranks that have diverged. Throws RunError, on every rank, that names the first
/// tensor that differs and the ranks whose bits are not those of most ranks (of two, rank 1).
void check_replicas(RankGroup& ranks, const NamedTensors& tensors, int64_t step);

}  // namespace dsmoe
