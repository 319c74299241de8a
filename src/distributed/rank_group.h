#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <atomic>
#include <chrono>
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
  /// True once this process was asked to stop; polled until the group is set up. Later the caller
  /// decides.
  std::function<bool()> stop_requested = {};
  /// Called, with its text, instead of on_failure where the group was asked to stop before the
  /// first step, on this rank or on another; must not return. May be empty.
  std::function<void(const std::string& text)> on_stop = {};
  /// Beyond its timeout an operation may take this until the group ends it, and a quarter of this
  /// until its backends have given up: 5 seconds in all.
  double grace_seconds = 4;
  std::optional<Accelerator> accelerator = {};  ///< for tensors that are not on the CPU
  /// Ranks compare every collective before they begin it and say which differ, at the price of two
  /// small collectives more. TORCH_DISTRIBUTED_DEBUG=DETAIL does the same.
  bool debug = false;
};

/// A collective failed: a rank died, does not answer, or does something else than this one. The
/// text names rank, step, operation, time, the last finished step, and what was seen of the other
/// ranks' processes. Later collectives throw it again and do nothing.
class RankFailure : public RunError {
 public:
  using RunError::RunError;
};

/// Where the ranks of a job find each other.
struct MeetingPlace {
  std::string name;  ///< address or file, for messages
  std::function<c10::intrusive_ptr<c10d::Store>()> open_store;
};

/// The ranks of a job and what they do together. Every rank calls the same operations in the same
/// order; a group of one does nothing in all of them. A collective takes the backend of its
/// tensors' device.
class RankGroup {
 public:
  using MakeBackend = dsmoe::MakeBackend;

  /// One rank.
  RankGroup();
  /// Meets the others at `place`; make_backend is that of CPU tensors. Throws RankFailure if they
  /// do not come within the set-up timeout, or do not connect within as much again. Where there is
  /// an on_failure, this holds even if a call into the store or a backend does not return.
  RankGroup(const MeetingPlace& place,
            int64_t rank,
            int64_t world_size,
            const RankGroupConfig& config,
            const MakeBackend& make_backend);
  /// Meets the others in an open store.
  RankGroup(c10::intrusive_ptr<c10d::Store> store,
            int64_t rank,
            int64_t world_size,
            const RankGroupConfig& config,
            const MakeBackend& make_backend);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  int64_t rank() const { return rank_; }
  int64_t world_size() const { return world_size_; }

  /// `what` names the data in the text of a failure.
  void all_reduce_sum(at::Tensor tensor, std::string_view what);
  void broadcast(at::Tensor tensor, std::string_view what);  ///< from rank 0
  /// out [world_size() * n] from every rank's in [n], contiguous.
  void all_gather(at::Tensor out, const at::Tensor& in, std::string_view what);
  /// Every rank's text, by rank.
  std::vector<std::string> all_gather(const std::string& text, std::string_view what);
  void barrier(std::string_view what);

  /// Runs `operation` and turns what it throws into this group's failure: for collectives that are
  /// started elsewhere.
  void run(std::string_view what, const std::function<void()>& operation);

  /// What this rank is at, for the text of failures.
  void begin_step(int64_t step);
  /// The last step that this run has finished, here or before it was resumed; 0: none.
  void finish_step(int64_t step);

  c10::intrusive_ptr<c10d::ProcessGroup> process_group() const;

 private:
  struct Members;
  using Clock = std::chrono::steady_clock;
  void start_watchdog();
  void set_up(const MeetingPlace& place, const MakeBackend& make_backend);
  void exchange_processes(Clock::time_point deadline);
  bool read_arrived(size_t& n_arrived);
  void let_others_leave();
  std::string missing_ranks() const;
  void connect(const MakeBackend& make_backend);
  double limit_seconds() const;
  /// The text of the group's one failure, which this is unless another thread came first.
  struct Failure;
  std::string report_failure(const Failure& failure);
  std::string abort_backends() const;
  std::string failure_text(const Failure& failure) const;
  std::string phase() const;
  bool stops_before_first_step() const;

  RankGroupConfig config_;
  int64_t rank_ = 0;
  int64_t world_size_ = 1;
  // The watchdog reads these too.
  std::atomic<int64_t> running_step_ = 0;            // 0: between steps
  std::atomic<int64_t> finished_step_ = -1;          // -1: not known yet
  std::atomic<bool> has_begun_ = false;              // a step
  std::atomic<bool> peer_stopped_ = false;           // another rank was asked to stop during set-up
  std::optional<Clock::time_point> setup_deadline_;  // while the group is set up
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
