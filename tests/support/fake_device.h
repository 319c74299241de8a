#pragma once

#include <c10/core/Device.h>
#include <c10/util/ThreadLocalDebugInfo.h>

namespace dsmoe {

/// A device that is not the CPU to torch or to us, and computes there: every operation copies its
/// inputs to the CPU and its results back. Tensors of the two do not mix. There are two of them, 0
/// and 1; ranks that are threads need one each, as torch runs the backward passes of a device on
/// one thread.
c10::Device fake_device(c10::DeviceIndex index = 0);

/// During its lifetime every host sync throws c10::Error on this thread and in the backward passes
/// that it begins: reading a number, and copies between the device and the CPU. A GPU refuses them
/// while it records.
class ForbidWaits {
 public:
  ForbidWaits();

 private:
  c10::DebugInfoGuard mark_;  // torch hands it on to the threads of backward passes
};

}  // namespace dsmoe
