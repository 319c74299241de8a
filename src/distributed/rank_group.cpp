#include "distributed/rank_group.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "distributed/watchdog.h"

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kHangGraceSeconds = 4;  // of the 5 that are promised

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
    // Set-up may take its timeout twice: once for the store, once for the connections.
    const double limit =
        std::max(2 * config.setup_timeout_seconds, config.step_timeout_seconds) + kHangGraceSeconds;
    members_->watchdog =
        std::make_unique<Watchdog>(limit, [this](const std::string& what, double seconds) {
          config_.on_failure(failure_text(what, seconds, "it does not return"));
        });
  }
  run("meeting the other ranks", [&] {
    auto backend = make_backend(c10::make_intrusive<c10d::PrefixStore>("ranks", store),
                                rank,
                                size,
                                config.setup_timeout_seconds);
    const auto type = c10d::ProcessGroup::BackendType::CUSTOM;
    members_->group = c10::make_intrusive<c10d::ProcessGroup>(
        store, static_cast<int>(rank), static_cast<int>(size));
    members_->group->setBackend(at::kCPU, type, backend);
    members_->group->setDefaultBackend(type);
    backend->setTimeout(
        std::chrono::milliseconds(static_cast<int64_t>(1000 * config.step_timeout_seconds)));
  });
  const auto all = all_gather(fmt::format("{} {}", getpid(), host_name()), "process numbers");
  for (const auto& text : all) {
    const auto space = text.find(' ');
    members_->processes.push_back(
        {.host = text.substr(space + 1), .pid = std::stoll(text.substr(0, space))});
  }
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
  const auto start = Clock::now();
  auto* watchdog = members_ ? members_->watchdog.get() : nullptr;
  if (watchdog != nullptr) watchdog->begin(std::string(what));
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
  fail(what, seconds_since(start), first_line(reason));
}

void RankGroup::fail(std::string_view what, double seconds, const std::string& reason) {
  const auto text = failure_text(what, seconds, reason);
  if (config_.on_failure) config_.on_failure(text);
  throw RankFailure(text);
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
