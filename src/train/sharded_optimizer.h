#pragma once

#include "distributed/rank_group.h"
#include "train/optimizer.h"

/// Exchanges between ranks that each keep the moments of their share of the elements (ZeRO-1,
/// arXiv:1910.02054, section 5.1). All functions are collectives. They move nothing on one rank, or
/// if every rank keeps all moments.
namespace dsmoe {

/// This rank's share of the elements, or all of them where the optimizer is not sharded.
OptimizerShard optimizer_shard(bool is_sharded, const RankGroup& ranks);

/// After a step: every rank gets the parameters' elements that others have updated. Needs a few
/// megabytes per rank besides.
void share_parameters(Optimizer& optimizer, RankGroup& ranks);

/// The whole state as Optimizer::named_state has it, on rank 0; empty on the others.
NamedTensors gather_state(const Optimizer& optimizer, RankGroup& ranks);

/// Gives every rank its part of rank 0's `whole` state, by name as from gather_state; the
/// argument of the other ranks is not read.
void scatter_state(Optimizer& optimizer, RankGroup& ranks, const NamedTensors& whole);

}  // namespace dsmoe
