// Rendezvous of the ranks: the store, the other ranks' processes, the connections.
#include <fmt/format.h>

#include <torch/csrc/distributed/c10d/debug.h>
#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "distributed/rank_group_members.h"

namespace dsmoe {
namespace {

using std::chrono::duration;

constexpr const char* kDecisionKey = "decision";  // to continue or to stop; first one holds
constexpr const char* kGo = "go";
constexpr const char* kStop = "stop";
// Many ranks poll one store: ever more slowly.
constexpr duration<double> kFirstPoll{0.005};
constexpr duration<double> kSlowestPoll{0.25};

// Shorter than the watchdog's limit for a rank that was asked to stop.
constexpr std::chrono::milliseconds kLeavingPatience{700};

std::string process_key(size_t rank) { return fmt::format("process/{}", rank); }
std::string left_key(size_t rank) { return fmt::format("left/{}", rank); }

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds));
}

}  // namespace

void RankGroup::set_up(const RendezvousStore& rendezvous, const MakeBackend& make_backend) {
  const auto start = Clock::now();
  const auto after = [&](double seconds) {
    return start + std::chrono::duration_cast<Clock::duration>(duration<double>(seconds));
  };
  const double timeout = config_.setup_timeout_seconds;
  // One timeout for the other ranks to arrive, one for the connections.
  setup_deadline_ = after(2 * timeout + config_.grace_seconds);
  run("opening the store at " + rendezvous.name,
      [&] { members_->store = rendezvous.open_store(); });
  run("waiting for the other ranks at " + rendezvous.name,
      [&] { exchange_processes(after(timeout)); });
  run("connecting to the other ranks", [&] { connect(make_backend); });
  setup_deadline_.reset();
}

// Every rank publishes its process and waits for the decision. Rank 0 decides once all have
// arrived. A rank that is asked to stop meanwhile decides for all; the store keeps the first
// decision.
void RankGroup::exchange_processes(Clock::time_point deadline) {
  auto& store = *members_->store;
  store.set(process_key(static_cast<size_t>(rank_)), to_text(this_process()));
  size_t n_arrived = 0;
  auto pause = kFirstPoll;
  while (true) {
    const bool all_have_come = read_arrived(n_arrived);
    // First: a rank 0 that was asked to stop does not let the others continue.
    if (config_.stop_requested && config_.stop_requested()) {
      store.compareSet(kDecisionKey, std::string(), kStop);
    }
    if (all_have_come && rank_ == 0) store.compareSet(kDecisionKey, std::string(), kGo);
    if (store.check({kDecisionKey})) {
      if (store.get_to_str(kDecisionKey) == kStop) {
        peer_stopped_ = true;
        let_others_leave();
        throw std::runtime_error("a rank was asked to stop");
      }
      if (all_have_come) return;
    }
    if (Clock::now() > deadline) throw std::runtime_error(missing_ranks());
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 1.5, kSlowestPoll);
  }
}

// Rank 0 may serve the store: it leaves last, after all have read the decision.
void RankGroup::let_others_leave() {
  auto& store = *members_->store;
  if (rank_ != 0) {
    store.set(left_key(static_cast<size_t>(rank_)), std::string("left"));
    return;
  }
  const auto end = Clock::now() + kLeavingPatience;
  for (size_t rank = 1; rank < members_->processes.size() && Clock::now() < end;) {
    if (!store.check({process_key(rank)}) || store.check({left_key(rank)})) {
      ++rank;
    } else {
      std::this_thread::sleep_for(kFirstPoll);
    }
  }
}

// Reads the processes of the ranks that have arrived, in order, up to the first that has not;
// returns whether all have.
bool RankGroup::read_arrived(size_t& n_arrived) {
  auto& store = *members_->store;
  auto& processes = members_->processes;
  while (n_arrived < processes.size() && store.check({process_key(n_arrived)})) {
    auto process = parse_peer_process(store.get_to_str(process_key(n_arrived)));
    const std::lock_guard<std::mutex> lock(failure_mutex_);  // the watchdog may be reading them
    processes[n_arrived++] = std::move(process);
  }
  return n_arrived == processes.size();
}

std::string RankGroup::missing_ranks() const {
  std::string missing;
  for (size_t rank = 0; rank < members_->processes.size(); ++rank) {
    if (members_->store->check({process_key(rank)})) continue;
    missing += fmt::format("{}{}", missing.empty() ? "" : ", ", rank);
  }
  const double timeout = config_.setup_timeout_seconds;
  return missing.empty()
             ? fmt::format("rank 0 did not go on within the set-up timeout of {:.1f} s", timeout)
             : fmt::format("these ranks did not come within the set-up timeout of {:.1f} s: {}",
                           timeout,
                           missing);
}

void RankGroup::connect(const MakeBackend& make_backend) {
  const bool debug = config_.debug || c10d::debug_level() == c10d::DebugLevel::Detail;
  members_->group = c10::make_intrusive<c10d::ProcessGroup>(
      members_->store, static_cast<int>(rank_), static_cast<int>(world_size_));
  const auto make = [&](const std::string& name, const MakeBackend& maker, double timeout_seconds) {
    auto backend = maker(c10::make_intrusive<c10d::PrefixStore>(name, members_->store),
                         rank_,
                         world_size_,
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
  // Each backend type serves one device type.
  auto& group = *members_->group;
  group.setBackend(at::kCPU, Type::CUSTOM, in_debug(make("cpu", make_backend, step_timeout)));
  if (const auto& accelerator = config_.accelerator) {
    // NCCL's own timeout would end the process without our text: our timeout comes first.
    const double timeout = config_.step_timeout_seconds + 3 * config_.grace_seconds;
    group.setBackend(accelerator->device,
                     Type::NCCL,
                     in_debug(make("accelerator", accelerator->make_backend, timeout)));
  }
  group.setDefaultBackend(Type::CUSTOM);
}

}  // namespace dsmoe
