#include "distributed/rank_group.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <future>
#include <thread>

#include "distributed/rank_group_members.h"

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

// Time for a peer to end after it closed its sockets.
constexpr double kPatienceSeconds = 0.5;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

// One failed operation.
struct RankGroup::Failure {
  std::string_view what;
  double seconds = 0;
  std::string reason;
  /// A process may need a moment to end after its sockets closed; one that does not answer runs on.
  double patience_seconds = 0;
};

RankGroup::RankGroup() = default;

// Limit after which an operation counts as ignoring its own timeout. All of set-up has one limit.
double RankGroup::limit_seconds() const {
  if (setup_deadline_) return -seconds_since(*setup_deadline_);
  return config_.step_timeout_seconds + config_.grace_seconds;
}

RankGroup::RankGroup(c10::intrusive_ptr<c10d::Store> store,
                     int64_t rank,
                     int64_t world_size,
                     const RankGroupConfig& config,
                     const MakeBackend& make_backend)
    : RankGroup({.name = "an open store", .open_store = [store] { return store; }},
                rank,
                world_size,
                config,
                make_backend) {}

RankGroup::RankGroup(const RendezvousStore& rendezvous,
                     int64_t rank,
                     int64_t world_size,
                     const RankGroupConfig& config,
                     const MakeBackend& make_backend)
    : config_(config), rank_(rank), world_size_(world_size) {
  if (world_size == 1) return;
  members_ = std::make_unique<Members>();
  members_->processes.resize(static_cast<size_t>(world_size));
  if (config.on_failure) start_watchdog();
  set_up(rendezvous, make_backend);
}

void RankGroup::start_watchdog() {
  const auto reporter = [this](const std::string& reason) {
    return [this, reason](const std::string& what, double seconds) {
      report_failure({.what = what, .seconds = seconds, .reason = reason, .patience_seconds = 0});
    };
  };
  members_->watchdog =
      std::make_unique<Watchdog>(Watchdog::Handlers{.on_hang = reporter("it does not return"),
                                                    .stop_requested = config_.stop_requested,
                                                    .on_stop = reporter("a stop was asked for")});
}

// Destructors of backends and stores may wait for their peers.
RankGroup::~RankGroup() {
  if (!members_ || has_failed_) return;
  auto& watchdog = members_->watchdog;
  if (watchdog) watchdog->begin({.what = "leaving the group", .limit_seconds = limit_seconds()});
  members_->group.reset();
  members_->backends.clear();
  members_->store.reset();
  if (watchdog) watchdog->end();
}

void RankGroup::begin_step(int64_t step) {
  has_begun_ = true;
  running_step_ = step;
  finished_step_ = step - 1;
}

void RankGroup::finish_step(int64_t step) {
  running_step_ = 0;
  finished_step_ = step;
}

void RankGroup::all_reduce_sum(at::Tensor tensor, std::string_view what) {
  if (world_size_ == 1) return;
  std::vector<at::Tensor> tensors = {std::move(tensor)};
  run(what, [&] { members_->group->allreduce(tensors)->wait(); });
}

void RankGroup::broadcast(at::Tensor tensor, std::string_view what) {
  if (world_size_ == 1) return;
  std::vector<at::Tensor> tensors = {std::move(tensor)};
  run(what, [&] { members_->group->broadcast(tensors)->wait(); });
}

void RankGroup::all_gather(at::Tensor out, const at::Tensor& in, std::string_view what) {
  TORCH_CHECK(out.numel() == world_size_ * in.numel(),
              "RankGroup::all_gather: expected out of ",
              world_size_ * in.numel(),
              " elements, got ",
              out.numel());
  if (world_size_ == 1) {
    out.view(-1).copy_(in.reshape(-1));
    return;
  }
  auto input = in.contiguous().view(-1);
  auto output = out.view(-1);
  run(what, [&] { members_->group->_allgather_base(output, input)->wait(); });
}

std::vector<std::string> RankGroup::all_gather(const std::string& text, std::string_view what) {
  if (world_size_ == 1) return {text};
  const auto lengths = at::empty({world_size_}, at::kLong);
  all_gather(lengths, at::zeros({1}, at::kLong) + static_cast<int64_t>(text.size()), what);
  const auto* length = lengths.const_data_ptr<int64_t>();
  const int64_t longest = std::max<int64_t>(*std::max_element(length, length + world_size_), 1);
  const auto mine = at::zeros({longest}, at::kByte);
  std::memcpy(mine.data_ptr(), text.data(), text.size());
  const auto all = at::empty({world_size_, longest}, at::kByte);
  all_gather(all, mine, what);
  std::vector<std::string> texts;
  for (int64_t i = 0; i < world_size_; ++i) {
    const auto* bytes = static_cast<const char*>(all.const_data_ptr()) + i * longest;
    texts.emplace_back(bytes, static_cast<size_t>(length[i]));
  }
  return texts;
}

void RankGroup::barrier(std::string_view what) { all_reduce_sum(at::zeros({1}, at::kFloat), what); }

PendingCollective RankGroup::start_all_gather(at::Tensor flat, const std::string& what) {
  if (world_size_ == 1) return {};
  TORCH_CHECK(flat.dim() == 1 && flat.is_contiguous() && flat.numel() % world_size_ == 0,
              "RankGroup::start_all_gather: expected [",
              world_size_,
              " * n], got ",
              flat.sizes());
  const int64_t n = flat.numel() / world_size_;
  auto mine = flat.narrow(0, rank_ * n, n);
  c10::intrusive_ptr<c10d::Work> work;
  guard(what, [&] { work = members_->group->_allgather_base(flat, mine); });
  return PendingCollective([this, what, work, flat, mine] { guard(what, [&] { work->wait(); }); });
}

// NCCL reduces while it sends. Gloo's reduce-scatter is an all-reduce of a copy: an exchange and
// additions take less time, and their order is the ranks'.
PendingCollective RankGroup::start_reduce_scatter(at::Tensor parts,
                                                  at::Tensor sum,
                                                  const std::string& what) {
  TORCH_CHECK(
      parts.is_contiguous() && sum.is_contiguous() && parts.numel() == world_size_ * sum.numel(),
      "RankGroup::start_reduce_scatter: expected ",
      world_size_,
      " parts of ",
      sum.numel(),
      " elements, got ",
      parts.sizes());
  if (world_size_ == 1) {
    sum.copy_(parts.view(-1));
    return {};
  }
  c10::intrusive_ptr<c10d::Work> work;
  if (!parts.is_cpu()) {
    guard(what, [&] { work = members_->group->_reduce_scatter_base(sum, parts); });
    return PendingCollective(
        [this, what, work, parts, sum] { guard(what, [&] { work->wait(); }); });
  }
  auto received = at::empty({world_size_, sum.numel()}, sum.options());
  guard(what, [&] {
    auto sent = parts.view({world_size_, sum.numel()});
    std::vector<int64_t> equal;
    work = members_->group->alltoall_base(received, sent, equal, equal);
  });
  return PendingCollective([this, what, work, parts, sum, received] {
    guard(what, [&] { work->wait(); });
    auto total = sum.view(-1);
    total.copy_(received[0]);
    for (int64_t rank = 1; rank < world_size_; ++rank) total.add_(received[rank]);
  });
}

void RankGroup::run(std::string_view what, const std::function<void()>& operation) {
  guard(what, [&] {
    operation();
    if (config_.accelerator && config_.accelerator->finish) config_.accelerator->finish();
  });
}

// Starts and waits of asynchronous collectives do not wait for the device.
void RankGroup::guard(std::string_view what, const std::function<void()>& operation) {
  if (has_failed_) {
    const std::lock_guard<std::mutex> lock(failure_mutex_);
    throw RankFailure(failure_);
  }
  const auto start = Clock::now();
  auto* watchdog = members_ ? members_->watchdog.get() : nullptr;
  if (watchdog != nullptr) {
    watchdog->begin({.what = std::string(what),
                     .limit_seconds = limit_seconds(),
                     .ends_on_stop = setup_deadline_.has_value()});
  }
  std::string reason;
  try {
    operation();
    if (watchdog != nullptr) watchdog->end();
    return;
  } catch (const c10::Error& error) {
    reason = error.what_without_backtrace();
  } catch (const std::exception& error) {
    reason = error.what();
  }
  if (watchdog != nullptr) watchdog->end();
  throw RankFailure(report_failure({.what = what,
                                    .seconds = seconds_since(start),
                                    .reason = first_line(reason),
                                    .patience_seconds = kPatienceSeconds}));
}

// A second failure waits until the first is reported.
std::string RankGroup::report_failure(const Failure& failure) {
  const std::lock_guard<std::mutex> lock(failure_mutex_);
  if (has_failed_) return failure_;
  failure_ = failure_text(failure);
  has_failed_ = true;
  // Checked after the text is made, which takes a moment: a stop goes to all ranks, and the first
  // that leaves fails the others.
  if (stops_before_first_step() && config_.on_stop) {
    failure_ = fmt::format(
        "rank {} of {}: stopped before the first step, while {}", rank_, world_size_, failure.what);
    config_.on_stop(failure_);
    return failure_;
  }
  failure_ += abort_backends();
  if (config_.on_failure) config_.on_failure(failure_);
  return failure_;
}

bool RankGroup::stops_before_first_step() const {
  return !has_begun_ && (peer_stopped_ || (config_.stop_requested && config_.stop_requested()));
}

// Aborts running operations, so that no thread waits for them forever; returns "" on success. An
// abort may block like the operation that it aborts: it runs on a separate thread with a time
// limit.
std::string RankGroup::abort_backends() const {
  if (members_ == nullptr) return "";
  auto done = std::make_shared<std::promise<std::string>>();
  auto result = done->get_future();
  std::thread([backends = members_->backends, done] {
    std::string trouble;
    for (const auto& backend : backends) {
      try {
        backend->abort();
      } catch (const std::exception& error) {
        trouble = "; aborting failed: " + first_line(error.what());
      }
    }
    done->set_value(trouble);
  }).detach();
  const std::chrono::duration<double> limit(config_.grace_seconds / 4);
  if (result.wait_for(limit) == std::future_status::ready) return result.get();
  return fmt::format("; aborting did not end within {:.1f} s", limit.count());
}

std::string RankGroup::failure_text(const Failure& failure) const {
  const int64_t finished = finished_step_;
  const std::string last = finished > 0    ? fmt::format("; the last finished step is {}", finished)
                           : finished == 0 ? "; no step is finished"
                                           : "";
  return fmt::format("rank {} of {}: {}: {} failed after {:.1f} s, {}: {}{}",
                     rank_,
                     world_size_,
                     phase(),
                     failure.what,
                     failure.seconds,
                     describe_peers(members_->processes, rank_, failure.patience_seconds),
                     failure.reason,
                     last);
}

std::string RankGroup::phase() const {
  if (const int64_t step = running_step_; step > 0) return fmt::format("step {}", step);
  const int64_t finished = finished_step_;
  return finished > 0 ? fmt::format("after step {}", finished) : "before the first step";
}

c10::intrusive_ptr<c10d::ProcessGroup> RankGroup::process_group() const {
  TORCH_CHECK(members_ != nullptr, "RankGroup: one rank has no process group");
  return members_->group;
}

}  // namespace dsmoe
