#include "cli/rank_support.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

namespace dsmoe {
namespace {

// No destructor either.
[[noreturn]] void leave(const std::string& text) {
  std::fprintf(stderr, "dsmoe: %s\n", text.c_str());
  std::fflush(nullptr);
  _exit(1);
}

}  // namespace

std::shared_ptr<RankGroup> join_job(const LaunchEnv& env,
                                    const DistributedConfig& config,
                                    c10::Device device) {
  // A rank that goes while this one writes to it is a failed collective, not the end without a
  // word.
  if (env.world_size > 1) std::signal(SIGPIPE, SIG_IGN);
  RankGroupConfig group{.setup_timeout_seconds = config.setup_timeout,
                        .step_timeout_seconds = config.step_timeout,
                        .on_failure = leave,
                        .debug = config.debug};
  if (!device.is_cpu()) group.accelerator = accelerator_of(device.type());
  return join_ranks(env, group);
}

int64_t threads_of_rank(int64_t threads, const LaunchEnv& env) {
  if (threads > 0 || env.local_size == 1) return threads;
  return std::max<int64_t>(std::thread::hardware_concurrency() / env.local_size, 1);
}

}  // namespace dsmoe
