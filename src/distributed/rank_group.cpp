#include "distributed/rank_group.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <unistd.h>

#include <torch/csrc/distributed/c10d/debug.h>
#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <future>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "distributed/watchdog.h"

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

// When an operation counts as one that ignores its own timeout. Set-up may take its timeout twice:
// once for the store, once for the connections.
double hang_seconds(const RankGroupConfig& config) {
  return std::max(2 * config.setup_timeout_seconds, config.step_timeout_seconds) +
         config.grace_seconds;
}

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds));
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

struct Process {
  std::string host;
  int64_t pid = 0;
};

// "" if it runs.
std::string trouble_of(const Process& process) {
  std::ifstream stat(fmt::format("/proc/{}/stat", process.pid));
  std::string line;
  if (!std::getline(stat, line)) return "is gone";
  const auto name_end = line.rfind(") ");
  const char state = name_end == std::string::npos ? '?' : line[name_end + 2];
  if (state == 'Z' || state == 'X') return "has ended";
  return state == 'T' ? "is stopped" : "";
}

}  // namespace

struct RankGroup::Members {
  c10::intrusive_ptr<c10d::Store> store;
  std::vector<c10::intrusive_ptr<c10d::Backend>> backends;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  std::vector<Process> processes;  // by rank
  std::unique_ptr<Watchdog> watchdog;
};

RankGroup::RankGroup() = default;

RankGroup::RankGroup(c10::intrusive_ptr<c10d::Store> store,
                     int64_t rank,
                     int64_t size,
                     const RankGroupConfig& config,
                     const MakeBackend& make_backend)
    : config_(config), rank_(rank), size_(size) {
  if (size == 1) return;
  members_ = std::make_unique<Members>();
  members_->store = store;
  if (config.on_failure) {
    members_->watchdog = std::make_unique<Watchdog>(
        hang_seconds(config), [this](const std::string& what, double seconds) {
          report_failure(what, seconds, "it does not return");
        });
  }
  run("meeting the other ranks", [&] { connect(make_backend); });
  const auto all = all_gather(fmt::format("{} {}", getpid(), host_name()), "process numbers");
  for (const auto& text : all) {
    const auto space = text.find(' ');
    members_->processes.push_back(
        {.host = text.substr(space + 1), .pid = std::stoll(text.substr(0, space))});
  }
}

void RankGroup::connect(const MakeBackend& make_backend) {
  const bool debug = config_.debug || c10d::debug_level() == c10d::DebugLevel::Detail;
  members_->group = c10::make_intrusive<c10d::ProcessGroup>(
      members_->store, static_cast<int>(rank_), static_cast<int>(size_));
  const auto make = [&](const std::string& name, const MakeBackend& maker, double timeout_seconds) {
    auto backend = maker(c10::make_intrusive<c10d::PrefixStore>(name, members_->store),
                         rank_,
                         size_,
                         config_.setup_timeout_seconds);
    backend->setTimeout(milliseconds(timeout_seconds));
    const std::lock_guard<std::mutex> lock(failure_mutex_);  // the watchdog may be aborting them
    members_->backends.push_back(backend);
    return backend;
  };
  const double step_timeout = config_.step_timeout_seconds;
  const auto helper = debug ? make("debug", make_backend, step_timeout) : nullptr;
  const auto in_debug = [&](const c10::intrusive_ptr<c10d::Backend>& backend) {
    return debug ? compare_collectives(backend, helper) : backend;
  };
  using Type = c10d::ProcessGroup::BackendType;
  // A type of backend stands for one device.
  auto& group = *members_->group;
  group.setBackend(at::kCPU, Type::CUSTOM, in_debug(make("cpu", make_backend, step_timeout)));
  if (const auto& accelerator = config_.accelerator) {
    // What NCCL does about its own timeout would end the process without our text: ours is first.
    const double timeout = hang_seconds(config_) + 2 * config_.grace_seconds;
    group.setBackend(accelerator->device,
                     Type::NCCL,
                     in_debug(make("accelerator", accelerator->make_backend, timeout)));
  }
  group.setDefaultBackend(Type::CUSTOM);
}

RankGroup::~RankGroup() = default;

void RankGroup::all_reduce_sum(at::Tensor tensor, std::string_view what) {
  if (is_alone()) return;
  std::vector<at::Tensor> tensors = {std::move(tensor)};
  run(what, [&] { members_->group->allreduce(tensors)->wait(); });
}

void RankGroup::broadcast(at::Tensor tensor, std::string_view what) {
  if (is_alone()) return;
  std::vector<at::Tensor> tensors = {std::move(tensor)};
  run(what, [&] { members_->group->broadcast(tensors)->wait(); });
}

void RankGroup::all_gather(at::Tensor out, const at::Tensor& in, std::string_view what) {
  TORCH_CHECK(out.numel() == size_ * in.numel(),
              "RankGroup::all_gather: expected out of ",
              size_ * in.numel(),
              " elements, got ",
              out.numel());
  if (is_alone()) {
    out.view(-1).copy_(in.reshape(-1));
    return;
  }
  auto input = in.contiguous().view(-1);
  auto output = out.view(-1);
  run(what, [&] { members_->group->_allgather_base(output, input)->wait(); });
}

std::vector<std::string> RankGroup::all_gather(const std::string& text, std::string_view what) {
  if (is_alone()) return {text};
  const auto lengths = at::empty({size_}, at::kLong);
  all_gather(lengths, at::zeros({1}, at::kLong) + static_cast<int64_t>(text.size()), what);
  const auto* length = lengths.const_data_ptr<int64_t>();
  const int64_t longest = std::max<int64_t>(*std::max_element(length, length + size_), 1);
  const auto mine = at::zeros({longest}, at::kByte);
  std::memcpy(mine.data_ptr(), text.data(), text.size());
  const auto all = at::empty({size_, longest}, at::kByte);
  all_gather(all, mine, what);
  std::vector<std::string> texts;
  for (int64_t i = 0; i < size_; ++i) {
    const auto* bytes = static_cast<const char*>(all.const_data_ptr()) + i * longest;
    texts.emplace_back(bytes, static_cast<size_t>(length[i]));
  }
  return texts;
}

void RankGroup::barrier(std::string_view what) { all_reduce_sum(at::zeros({1}, at::kFloat), what); }

void RankGroup::run(std::string_view what, const std::function<void()>& operation) {
  if (has_failed_) {
    const std::lock_guard<std::mutex> lock(failure_mutex_);
    throw RankFailure(failure_);
  }
  const auto start = Clock::now();
  auto* watchdog = members_ ? members_->watchdog.get() : nullptr;
  if (watchdog != nullptr) watchdog->begin(std::string(what));
  std::string reason;
  try {
    operation();
    if (config_.accelerator && config_.accelerator->finish) config_.accelerator->finish();
    if (watchdog != nullptr) watchdog->end();
    return;
  } catch (const c10::Error& error) {
    reason = error.what_without_backtrace();
  } catch (const std::exception& error) {
    reason = error.what();
  }
  if (watchdog != nullptr) watchdog->end();
  throw RankFailure(report_failure(what, seconds_since(start), first_line(reason)));
}

// The second to come waits until the first has been reported.
std::string RankGroup::report_failure(std::string_view what,
                                      double seconds,
                                      const std::string& reason) {
  const std::lock_guard<std::mutex> lock(failure_mutex_);
  if (has_failed_) return failure_;
  failure_ = failure_text(what, seconds, reason);
  has_failed_ = true;
  failure_ += abort_backends();
  if (config_.on_failure) config_.on_failure(failure_);
  return failure_;
}

// Ends what is in flight, so that no thread waits for it for ever; "" if that went well. An abort
// may hang as what it aborts does: it gets a thread of its own, and some time.
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

std::string RankGroup::failure_text(std::string_view what,
                                    double seconds,
                                    const std::string& reason) const {
  const int64_t step = step_;
  return fmt::format(
      "rank {} of {}: step {}: {} failed after {:.1f} s, {}: {}; the last finished step is {}",
      rank_,
      size_,
      step,
      what,
      seconds,
      lost_ranks(),
      reason,
      std::max<int64_t>(step - 1, 0));
}

std::string RankGroup::lost_ranks() const {
  std::vector<std::string> lost;
  const auto here = host_name();
  for (size_t i = 0; members_ && i < members_->processes.size(); ++i) {
    const auto& process = members_->processes[i];
    if (process.host != here) continue;
    const auto trouble = trouble_of(process);
    if (!trouble.empty()) lost.push_back(fmt::format("rank {} {}", i, trouble));
  }
  return lost.empty() ? "no rank of this host is missing"
                      : fmt::format("{}", fmt::join(lost, ", "));
}

c10::intrusive_ptr<c10d::ProcessGroup> RankGroup::process_group() const {
  TORCH_CHECK(members_ != nullptr, "RankGroup: one rank has no process group");
  return members_->group;
}

}  // namespace dsmoe
