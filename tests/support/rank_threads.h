#pragma once

#include <ATen/Parallel.h>

#include <cstdlib>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <vector>

#include "distributed/rank_group.h"

namespace dsmoe {

/// Runs `work` on `size` ranks, each a thread of this process with its own group, over Gloo.
/// Rethrows the first rank's exception. Assertions belong into the caller's thread.
inline void run_ranks(int64_t size,
                      const std::function<void(RankGroup&)>& work,
                      const RankGroupConfig& config = {.setup_timeout_seconds = 20,
                                                       .step_timeout_seconds = 20},
                      const MakeBackend& make_backend = gloo_backend()) {
  // torch's flight recorder is one for all groups of a process, and not safe from several threads.
  setenv("TORCH_FR_BUFFER_SIZE", "0", 1);
  auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::exception_ptr> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      at::init_num_threads();
      try {
        RankGroup group(store, rank, size, config, make_backend);
        work(group);
        group.barrier("leaving");
      } catch (...) {
        errors[static_cast<size_t>(rank)] = std::current_exception();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace dsmoe
