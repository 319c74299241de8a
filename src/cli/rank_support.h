#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "distributed/rank_group.h"
#include "train/train_config.h"

namespace dsmoe {

/// The ranks that the launcher started with this process. A failed collective ends the process at
/// once, with its text and exit code 1: nothing may wait for the other ranks then. A stop before
/// the first step ends it with kExitStopped: there is nothing to save.
///
/// device  where tensors are that are not on the CPU, as open_device gave it
std::shared_ptr<RankGroup> join_job(const LaunchEnv& env,
                                    const DistributedConfig& config,
                                    c10::Device device = c10::kCPU);

/// Runs `operation`, which may wait for a driver or a disk, before the ranks meet. A stop that it
/// does not see ends the process after a second, with kExitStopped; among several ranks one that
/// takes as long as set-up may take ends it with exit code 1.
void watch_start(const LaunchEnv& env,
                 const DistributedConfig& config,
                 const std::string& what,
                 const std::function<void()>& operation);

/// `threads`, or where it is 0 and several ranks share this host's cores, this rank's share.
int64_t threads_of_rank(int64_t threads, const LaunchEnv& env);

}  // namespace dsmoe
