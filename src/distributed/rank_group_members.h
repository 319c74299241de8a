#pragma once

#include <memory>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "distributed/peer_process.h"
#include "distributed/rank_group.h"
#include "distributed/watchdog.h"

namespace dsmoe {

/// Members of a group of several ranks; for rank_group*.cpp only.
struct RankGroup::Members {
  c10::intrusive_ptr<c10d::Store> store;
  std::vector<c10::intrusive_ptr<c10d::Backend>> backends;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  PeerProcesses processes;
  std::unique_ptr<Watchdog> watchdog;  // last: its thread uses the others
};

}  // namespace dsmoe
