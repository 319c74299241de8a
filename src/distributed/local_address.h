#pragma once

#include <string>

namespace dsmoe {

/// This host's address on the network over which `host` (name or address) is reached, as the
/// routing table has it; nothing is sent. Throws Error if `host` is not known or not reachable.
std::string local_address_towards(const std::string& host);

bool is_loopback(const std::string& address);

}  // namespace dsmoe
