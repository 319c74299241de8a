#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/error.h"
#include "distributed/accelerator.h"
#include "distributed/launch_env.h"

namespace c10d {
class Backend;
class ProcessGroup;
class Store;
}  // namespace c10d

namespace dsmoe {

struct RankGroupConfig {
  double setup_timeout_seconds = 30;
  double step_timeout_seconds = 300;  ///< the longest that one rank may let the others wait
  /// Called instead of throwing RankFailure, with its text; must not return. May be empty.
  std::function<void(const std::string& text)> on_failure = {};
  /// Beyond its timeout an operation may take this until the group ends it, and a quarter of this
  /// until its backends have given up: 5 seconds in all.
  double grace_seconds = 4;
  std::optional<Accelerator> accelerator = {};  ///< for tensors that are not on the CPU
  /// Ranks compare every collective before they begin it and say which differ, at the price of two
  /// small collectives more. TORCH_DISTRIBUTED_DEBUG=DETAIL does the same.
  bool debug = false;
};

/// A collective failed: a rank died, hangs, or does something else than this one. The text names
/// rank, step, operation, time, the last finished step and, where they run on this host, the ranks
/// that are gone. Later collectives throw it again and do nothing.
class RankFailure : public RunError {
 public:
  using RunError::RunError;
};

/// The ranks of a job and what they do together. Every rank calls the same operations in the same
/// order; a group of one does nothing in all of them. A collective takes the backend of its
/// tensors' device.
class RankGroup {
 public:
  using MakeBackend = dsmoe::MakeBackend;

  /// One rank.
  RankGroup();
  /// Meets the others through `store`; make_backend is that of CPU tensors. Throws RankFailure if
  /// they do not come within the set-up timeout.
  RankGroup(c10::intrusive_ptr<c10d::Store> store,
            int64_t rank,
            int64_t size,
            const RankGroupConfig& config,
            const MakeBackend& make_backend);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }
  bool is_first() const { return rank_ == 0; }
  bool is_alone() const { return size_ == 1; }

  /// `what` names the data in the text of a failure.
  void all_reduce_sum(at::Tensor tensor, std::string_view what);
  void broadcast(at::Tensor tensor, std::string_view what);  ///< from rank 0
  /// out [size() * n] from every rank's in [n], contiguous.
  void all_gather(at::Tensor out, const at::Tensor& in, std::string_view what);
  /// Every rank's text, by rank.
  std::vector<std::string> all_gather(const std::string& text, std::string_view what);
  void barrier(std::string_view what);

  /// Runs `operation` and turns what it throws into this group's failure: for collectives that are
  /// started elsewhere.
  void run(std::string_view what, const std::function<void()>& operation);

  /// What this rank is at, for the text of failures.
  void set_step(int64_t step) { step_ = step; }

  c10::intrusive_ptr<c10d::ProcessGroup> process_group() const;

 private:
  struct Members;
  void connect(const MakeBackend& make_backend);
  /// The text of the group's one failure, which this is unless another thread came first.
  std::string report_failure(std::string_view what, double seconds, const std::string& reason);
  std::string abort_backends() const;
  std::string failure_text(std::string_view what, double seconds, const std::string& reason) const;
  std::string lost_ranks() const;

  RankGroupConfig config_;
  int64_t rank_ = 0;
  int64_t size_ = 1;
  std::atomic<int64_t> step_ = 0;  // the watchdog reads it too
  std::atomic<bool> has_failed_ = false;
  std::mutex failure_mutex_;
  std::string failure_;  // of the first failure
  std::unique_ptr<Members> members_;
};

/// Gloo, listening on an address of this host or, if one is named, on a network interface.
MakeBackend gloo_backend(const std::string& address = "127.0.0.1",
                         const std::string& interface = "");

/// A backend that compares each collective over `helper`, a Gloo backend of the same ranks, before
/// `backend` begins it, and throws if ranks differ.
c10::intrusive_ptr<c10d::Backend> compare_collectives(c10::intrusive_ptr<c10d::Backend> backend,
                                                      c10::intrusive_ptr<c10d::Backend> helper);

/// The group of a launched process, over Gloo and the config's accelerator; one rank if the
/// environment says so.
std::unique_ptr<RankGroup> join_ranks(const LaunchEnv& env, const RankGroupConfig& config);

}  // namespace dsmoe
