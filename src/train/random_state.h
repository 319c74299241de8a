#pragma once

#include <string>

namespace dsmoe {

/// The bytes of the default CPU generator's state; restoring them repeats every later draw.
std::string capture_random_state();

/// Throws Error if the bytes are not a state of this torch's generator.
void restore_random_state(const std::string& bytes);

}  // namespace dsmoe
