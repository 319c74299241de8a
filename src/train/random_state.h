#pragma once

#include <c10/core/Device.h>

#include <string>

namespace dsmoe {

/// The bytes of the state of a device's default generator; restoring them repeats every later draw.
std::string capture_random_state(c10::Device device = c10::kCPU);

/// Throws Error if the bytes are not a state of this torch's generator.
void restore_random_state(const std::string& bytes, c10::Device device = c10::kCPU);

}  // namespace dsmoe
