// Gloo backend and the stores of the rendezvous. Gloo's headers are Debian's; the code is in the
// wheel.
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

// Opens the store for one start of the job: a launcher that serves the store keeps it for later
// starts.
c10::intrusive_ptr<c10d::Store> open_store(const LaunchEnv& env, double timeout_seconds) {
  const auto& rendezvous = env.rendezvous;
  c10::intrusive_ptr<c10d::Store> store;
  if (!rendezvous.file.empty()) {
    store = c10::make_intrusive<c10d::FileStore>(rendezvous.file, static_cast<int>(env.world_size));
  } else {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(rendezvous.port);
    options.isServer = env.rank == 0 && !rendezvous.is_hosted;
    options.numWorkers = static_cast<size_t>(env.world_size);
    options.waitWorkers = false;  // RankGroup waits, and polls the stop flag
    options.multiTenant = true;
    options.timeout = milliseconds(timeout_seconds);
    store = c10::make_intrusive<c10d::TCPStore>(rendezvous.address, options);
  }
  store->setTimeout(milliseconds(timeout_seconds));
  return c10::make_intrusive<c10d::PrefixStore>(fmt::format("start-{}", rendezvous.start), store);
}

std::string name_of(const Rendezvous& rendezvous) {
  return rendezvous.file.empty() ? fmt::format("{}:{}", rendezvous.address, rendezvous.port)
                                 : rendezvous.file;
}

// Listens on an address that the other ranks can reach.
MakeBackend choose_backend(const LaunchEnv& env) {
  const auto& rendezvous = env.rendezvous;
  if (!rendezvous.file.empty() || env.local_size == env.world_size) return gloo_backend();
  if (const auto interface = process_environment("GLOO_SOCKET_IFNAME")) {
    return gloo_backend("", *interface);
  }
  auto address = local_address_towards(rendezvous.address);
  if (is_loopback(address) && rendezvous.address != "127.0.0.1" &&
      rendezvous.address != "localhost") {
    log_warning(fmt::format(
        "the host of rank 0, {}, has the loopback address {} here: ranks on other hosts "
        "cannot connect; set GLOO_SOCKET_IFNAME to the network interface",
        rendezvous.address,
        address));
  }
  return gloo_backend(address);
}

// Chooses at the first call, under the watchdog: finding an address may query a name server.
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
  const RendezvousStore rendezvous{.name = name_of(env.rendezvous), .open_store = [&] {
                                     return open_store(env, config.setup_timeout_seconds);
                                   }};
  return std::make_unique<RankGroup>(
      rendezvous, env.rank, env.world_size, config, listening_backend(env));
}

}  // namespace dsmoe
