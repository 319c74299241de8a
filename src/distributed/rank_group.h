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
#include <utility>
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
  double step_timeout_seconds = 300;  ///< of a collective; must exceed the longest stall of a rank
  /// Called instead of throwing RankFailure, with its text; must not return. May be empty.
  std::function<void(const std::string& text)> on_failure = {};
  /// Returns the stop flag; polled until the group is set up. Later the caller decides.
  std::function<bool()> stop_requested = {};
  /// Called with its text instead of on_failure if a rank, this one or another, was asked to stop
  /// before the first step; must not return. May be empty.
  std::function<void(const std::string& text)> on_stop = {};
  /// Time from an operation's timeout until the group ends it; backends have a quarter of it to
  /// abort: 5 seconds in all.
  double grace_seconds = 4;
  std::optional<Accelerator> accelerator = {};  ///< for tensors that are not on the CPU
  /// Ranks compare every collective before they begin it and report differences, at the price of
  /// two more small collectives. TORCH_DISTRIBUTED_DEBUG=DETAIL does the same.
  bool debug = false;
};

/// A collective failed: a rank died, does not answer, or calls another collective. The text names
/// rank, step, operation, time, the last finished step, and the state of the other ranks'
/// processes. Later collectives throw it again and do nothing.
class RankFailure : public RunError {
 public:
  using RunError::RunError;
};

/// A collective that runs beside other work; its tensors must not be touched before wait() returns.
class PendingCollective {
 public:
  PendingCollective() = default;
  explicit PendingCollective(std::function<void()> wait) : wait_(std::move(wait)) {}
  bool is_pending() const { return static_cast<bool>(wait_); }
  /// Does nothing the second time. Throws RankFailure.
  void wait() {
    if (const auto wait = std::exchange(wait_, {})) wait();
  }

 private:
  std::function<void()> wait_;
};

/// Store of the rendezvous of a job's ranks.
struct RendezvousStore {
  std::string name;  ///< address or file, for messages
  std::function<c10::intrusive_ptr<c10d::Store>()> open_store;
};

/// The ranks of a job and their collectives. Every rank calls the same operations in the same
/// order; with one rank all of them do nothing. A collective uses the backend of its tensors'
/// device.
class RankGroup {
 public:
  using MakeBackend = dsmoe::MakeBackend;

  /// One rank.
  RankGroup();
  /// Joins the other ranks; make_backend makes the backend of CPU tensors. Throws RankFailure if
  /// they do not arrive within the set-up timeout, or do not connect within as much again. With an
  /// on_failure this holds even if a call into the store or a backend does not return.
  RankGroup(const RendezvousStore& rendezvous,
            int64_t rank,
            int64_t world_size,
            const RankGroupConfig& config,
            const MakeBackend& make_backend);
  /// Joins the other ranks in an open store.
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
  /// Returns every rank's text, by rank.
  std::vector<std::string> all_gather(const std::string& text, std::string_view what);
  void barrier(std::string_view what);

  /// Begins to gather `flat` [world_size() * n] in place: the rank's n elements are at rank() * n.
  PendingCollective start_all_gather(at::Tensor flat, const std::string& what);
  /// Begins to add part rank() of every rank's `parts` [world_size(), n] into `sum` [n], in the
  /// order of the ranks on the CPU: the bits depend on neither n nor timing.
  PendingCollective start_reduce_scatter(at::Tensor parts, at::Tensor sum, const std::string& what);

  /// Runs `operation` and turns its exceptions into this group's failure: for collectives that
  /// other code starts.
  void run(std::string_view what, const std::function<void()>& operation);

  /// Records the running step for the text of failures.
  void begin_step(int64_t step);
  /// Records the last step that this run has finished, before or after a resume; 0: none.
  void finish_step(int64_t step);

  c10::intrusive_ptr<c10d::ProcessGroup> process_group() const;

 private:
  struct Members;
  using Clock = std::chrono::steady_clock;
  void start_watchdog();
  void set_up(const RendezvousStore& rendezvous, const MakeBackend& make_backend);
  void exchange_processes(Clock::time_point deadline);
  bool read_arrived(size_t& n_arrived);
  void let_others_leave();
  std::string missing_ranks() const;
  void connect(const MakeBackend& make_backend);
  double limit_seconds() const;
  void guard(std::string_view what, const std::function<void()>& operation);
  /// Returns the text of the group's first failure: this one, unless another thread came first.
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

/// Makes a backend that compares each collective over `helper`, a Gloo backend of the same ranks,
/// before `backend` begins it, and throws if ranks differ.
c10::intrusive_ptr<c10d::Backend> compare_collectives(c10::intrusive_ptr<c10d::Backend> backend,
                                                      c10::intrusive_ptr<c10d::Backend> helper);

/// Makes the group of a launched process over Gloo and the config's accelerator; one rank if the
/// environment has no launcher's variables.
std::unique_ptr<RankGroup> join_ranks(const LaunchEnv& env, const RankGroupConfig& config);

}  // namespace dsmoe
