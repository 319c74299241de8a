#pragma once

namespace dsmoe {

/// A kernel of the device beside the CPU: over raw pointers, on the stream that is current there.
/// The device's module sets it while it is opened; where it is null, ATen does the op's work.
template <typename... Arguments>
using DeviceKernel = void (*)(Arguments...);

/// Calls `kernel` for tensors that are not on the CPU, else `function` of the widest instruction
/// set that the CPU has; inside namespace dsmoe.
#define DSMOE_CALL_FOR_DEVICE(is_cpu, kernel, function, ...) \
  do {                                                       \
    if (is_cpu) {                                            \
      DSMOE_CALL_FOR_ISA(function, __VA_ARGS__);             \
    } else {                                                 \
      kernel(__VA_ARGS__);                                   \
    }                                                        \
  } while (false)

}  // namespace dsmoe
