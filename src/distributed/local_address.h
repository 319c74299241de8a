#pragma once

#include <string>

namespace dsmoe {

/// Returns this host's address on the network over which it reaches `host` (name or address), from
/// the routing table; sends nothing. Throws Error if `host` is not known or not reachable.
std::string local_address_towards(const std::string& host);

bool is_loopback(const std::string& address);

}  // namespace dsmoe
