#include "distributed/local_address.h"

#include <fmt/format.h>

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "common/error.h"

namespace dsmoe {
namespace {

// Any will do: connecting a datagram socket only looks up the route.
constexpr const char* kPort = "9";

class Socket {
 public:
  explicit Socket(int family) : descriptor_(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

std::string address_of(const Socket& socket) {
  sockaddr_storage own{};
  socklen_t size = sizeof(own);
  std::array<char, NI_MAXHOST> text{};
  auto* generic = reinterpret_cast<sockaddr*>(&own);
  if (getsockname(socket.get(), generic, &size) != 0) return "";
  if (getnameinfo(generic, size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) != 0) {
    return "";
  }
  return text.data();
}

}  // namespace

std::string local_address_towards(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(host.c_str(), kPort, &hints, &found); code != 0) {
    throw Error(fmt::format(
        "rendezvous: expected a host that can be found, got '{}': {}", host, gai_strerror(code)));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  int error = 0;
  for (const auto* to = addresses.get(); to != nullptr; to = to->ai_next) {
    const Socket socket(to->ai_family);
    if (connect(socket.get(), to->ai_addr, to->ai_addrlen) == 0) {
      if (auto address = address_of(socket); !address.empty()) return address;
    }
    error = errno;
  }
  throw Error(fmt::format(
      "rendezvous: expected a route to the host, got '{}': {}", host, std::strerror(error)));
}

bool is_loopback(const std::string& address) {
  return address == "::1" || address.starts_with("127.");
}

}  // namespace dsmoe
