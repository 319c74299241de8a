#pragma once

#include "common/cpu_features.h"

/// An op lists its kernels, functions over raw pointers without torch, in a struct of function
/// pointers: its kernel table. There is one table per instruction set and one for another device.
namespace dsmoe {

/// The table for one instruction set. The cpu.cpp of the op is compiled once per instruction set
/// and defines it: `template <> RotaryKernels<float, float> isa_kernels<CpuIsa::DSMOE_ISA>()`.
template <CpuIsa kIsa, typename Kernels>
Kernels isa_kernels();

/// The table for CUDA; its kernels start on the current stream. The cuda.cu of the op defines it.
template <typename Kernels>
Kernels cuda_kernels();

/// The table for the widest instruction set of this CPU.
template <typename Kernels>
const Kernels& cpu_kernels() {
  static const Kernels kernels = [] {
    switch (cpu_isa()) {
      case CpuIsa::kPortable:
        break;
      case CpuIsa::kAvx2:
        return isa_kernels<CpuIsa::kAvx2, Kernels>();
      case CpuIsa::kAvx512:
        return isa_kernels<CpuIsa::kAvx512, Kernels>();
      case CpuIsa::kAvx512Bf16:
        return isa_kernels<CpuIsa::kAvx512Bf16, Kernels>();
    }
    return isa_kernels<CpuIsa::kPortable, Kernels>();
  }();
  return kernels;
}

/// The table for the device beside the CPU. The module of the device fills it when it is loaded;
/// ATen computes an op whose kernel is null.
template <typename Kernels>
Kernels& device_kernels() {
  static Kernels kernels{};
  return kernels;
}

/// The table for tensors on the CPU, or on the device beside it.
template <typename Kernels>
const Kernels& kernels_for(bool is_cpu) {
  return is_cpu ? cpu_kernels<Kernels>() : device_kernels<Kernels>();
}

}  // namespace dsmoe
