// Gloo and the stores over which ranks meet. Gloo's headers are Debian's; the code is in the wheel.
#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupWrapper.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "common/log.h"
#include "distributed/local_address.h"
#include "distributed/rank_group.h"

namespace dsmoe {
namespace {

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds));
}

// The ranks of one start of the job: a launcher that serves the store keeps it for later starts.
c10::intrusive_ptr<c10d::Store> open_store(const LaunchEnv& env, double timeout_seconds) {
  const auto& meeting = env.rendezvous;
  c10::intrusive_ptr<c10d::Store> store;
  if (!meeting.file.empty()) {
    store = c10::make_intrusive<c10d::FileStore>(meeting.file, static_cast<int>(env.world_size));
  } else {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(meeting.port);
    options.isServer = env.rank == 0 && !meeting.is_hosted;
    options.numWorkers = static_cast<size_t>(env.world_size);
    options.waitWorkers = false;  // RankGroup waits, and sees a stop meanwhile
    options.multiTenant = true;
    options.timeout = milliseconds(timeout_seconds);
    store = c10::make_intrusive<c10d::TCPStore>(meeting.address, options);
  }
  store->setTimeout(milliseconds(timeout_seconds));
  return c10::make_intrusive<c10d::PrefixStore>(fmt::format("start-{}", meeting.start), store);
}

std::string name_of(const Rendezvous& meeting) {
  return meeting.file.empty() ? fmt::format("{}:{}", meeting.address, meeting.port) : meeting.file;
}

// Listens where the others can connect.
MakeBackend choose_backend(const LaunchEnv& env) {
  const auto& meeting = env.rendezvous;
  if (!meeting.file.empty() || env.local_size == env.world_size) return gloo_backend();
  if (const auto interface = process_environment("GLOO_SOCKET_IFNAME")) {
    return gloo_backend("", *interface);
  }
  auto address = local_address_towards(meeting.address);
  if (is_loopback(address) && meeting.address != "127.0.0.1" && meeting.address != "localhost") {
    log_warning(
        fmt::format("the host of rank 0, {}, is this one at {}: ranks on other hosts "
                    "cannot connect; GLOO_SOCKET_IFNAME names the network interface",
                    meeting.address,
                    address));
  }
  return gloo_backend(address);
}

// Chooses at the first call, which the watchdog bounds: finding an address may ask a name server.
MakeBackend listening_backend(const LaunchEnv& env) {
  return [env, chosen = std::make_shared<MakeBackend>()](
             const auto& store, int64_t rank, int64_t size, double timeout_seconds) {
    if (!*chosen) *chosen = choose_backend(env);
    return (*chosen)(store, rank, size, timeout_seconds);
  };
}

}  // namespace

MakeBackend gloo_backend(const std::string& address, const std::string& interface) {
  return [=](const c10::intrusive_ptr<c10d::Store>& store,
             int64_t rank,
             int64_t size,
             double timeout_seconds) -> c10::intrusive_ptr<c10d::Backend> {
    auto options = c10d::ProcessGroupGloo::Options::create();
    options->timeout = milliseconds(timeout_seconds);
    options->devices.push_back(interface.empty()
                                   ? c10d::ProcessGroupGloo::createDeviceForHostname(address)
                                   : c10d::ProcessGroupGloo::createDeviceForInterface(interface));
    return c10::make_intrusive<c10d::ProcessGroupGloo>(
        store, static_cast<int>(rank), static_cast<int>(size), options);
  };
}

c10::intrusive_ptr<c10d::Backend> compare_collectives(c10::intrusive_ptr<c10d::Backend> backend,
                                                      c10::intrusive_ptr<c10d::Backend> helper) {
  return c10::make_intrusive<c10d::ProcessGroupWrapper>(backend, std::move(helper));
}

std::unique_ptr<RankGroup> join_ranks(const LaunchEnv& env, const RankGroupConfig& config) {
  if (env.world_size == 1) return std::make_unique<RankGroup>();
  const MeetingPlace place{.name = name_of(env.rendezvous), .open_store = [&] {
                             return open_store(env, config.setup_timeout_seconds);
                           }};
  return std::make_unique<RankGroup>(
      place, env.rank, env.world_size, config, listening_backend(env));
}

}  // namespace dsmoe
