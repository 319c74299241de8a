#pragma once

namespace dsmoe {

/// Gives every op with a device kernel that kernel's body, executed on the CPU: the host code of a
/// GPU then runs whole on the fake device (support/fake_device.h), autograd and all.
void install_emulated_kernels();

}  // namespace dsmoe
