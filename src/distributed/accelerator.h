#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <functional>

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace dsmoe {

/// Makes a backend that carries out collectives, from a store of its own.
using MakeBackend =
    std::function<c10::intrusive_ptr<c10d::Backend>(c10::intrusive_ptr<c10d::Store> store,
                                                    int64_t rank,
                                                    int64_t size,
                                                    double timeout_seconds)>;

/// Collectives over tensors of a device that works beside the CPU, such as NCCL over CUDA's.
struct Accelerator {
  c10::DeviceType device;
  MakeBackend make_backend;
  /// Returns when the device has finished what it was given: only then is a collective known to
  /// have worked. Empty where waiting for its result is enough.
  std::function<void()> finish = {};
};

/// For a module that brings an accelerator, while it is being opened.
void register_accelerator(Accelerator accelerator);

/// What an opened module brought. Throws Error for a device without one.
const Accelerator& accelerator_of(c10::DeviceType device);

}  // namespace dsmoe
