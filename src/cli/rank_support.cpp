#include "cli/rank_support.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <string>
#include <thread>

#include "common/exit_codes.h"
#include "common/log.h"
#include "common/stop_signal.h"
#include "distributed/watchdog.h"

namespace dsmoe {
namespace {

constexpr std::chrono::seconds kPrintingPatience{2};

// Without destructors. A terminal that takes no more output must not keep the process.
[[noreturn]] void leave(int code, const std::string& text) {
  std::thread([code] {
    std::this_thread::sleep_for(kPrintingPatience);
    _exit(code);
  }).detach();
  print_complaint(text);
  std::fflush(nullptr);
  _exit(code);
}

[[noreturn]] void fail(const std::string& text) { leave(kExitFailed, text); }

[[noreturn]] void stop(const std::string& text) {
  leave(kExitStopped, text + "; the same command starts again");
}

}  // namespace

std::shared_ptr<RankGroup> join_job(const LaunchEnv& env,
                                    const DistributedConfig& config,
                                    c10::Device device) {
  RankGroupConfig group{.setup_timeout_seconds = config.setup_timeout,
                        .step_timeout_seconds = config.step_timeout,
                        .on_failure = fail,
                        .stop_requested = stop_requested,
                        .on_stop = stop,
                        .debug = config.debug};
  if (!device.is_cpu()) group.accelerator = accelerator_of(device.type());
  return join_ranks(env, group);
}

void watch_start(const LaunchEnv& env,
                 const DistributedConfig& config,
                 const std::string& what,
                 const std::function<void()>& operation) {
  const bool single = env.world_size == 1;
  const auto name = single ? "train" : fmt::format("rank {} of {}", env.rank, env.world_size);
  Watchdog watchdog(
      {.on_hang =
           [&](const std::string& phase, double seconds) {
             fail(fmt::format("{}: {} did not end within {:.1f} s, before the ranks meet",
                              name,
                              phase,
                              seconds));
           },
       .stop_requested = stop_requested,
       .on_stop =
           [&](const std::string& phase, double) {
             stop(fmt::format("{}: stopped before the first step, while {}", name, phase));
           }});
  const double limit = single ? std::numeric_limits<double>::infinity()
                              : 2 * config.setup_timeout + RankGroupConfig{}.grace_seconds;
  watchdog.begin({.what = what, .limit_seconds = limit, .ends_on_stop = true});
  operation();
}

int64_t threads_of_rank(int64_t threads, const LaunchEnv& env) {
  if (threads > 0 || env.local_size == 1) return threads;
  return std::max<int64_t>(std::thread::hardware_concurrency() / env.local_size, 1);
}

}  // namespace dsmoe
