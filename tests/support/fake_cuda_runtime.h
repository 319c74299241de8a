#pragma once

#include <driver_types.h>
#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

/// A CUDA runtime whose kernels are functions of the test: for programs whose .cu files were
/// compiled with `nvcc -cudart none`. One thread only.
namespace dsmoe::fake_cuda {

/// The stream that kernels start on.
inline const auto kStream = reinterpret_cast<cudaStream_t>(uintptr_t{0x51});

struct Launch {
  std::string kernel;  ///< demangled, without its parameters
  dim3 grid, block;
  size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
};

/// Body of a kernel; receives the addresses of its arguments.
using Kernel = std::function<void(const Launch& launch, void** arguments)>;

/// Forgets launches, kernels and the failure.
void reset();
/// `name` as in Launch::kernel. A launch of a kernel without a body is logged and does nothing.
void set_kernel(const std::string& name, Kernel kernel);
/// Launches that were accepted, in order.
const std::vector<Launch>& launches();
/// The n-th launch from now on, counted from 1, fails with `error`; 0: none does.
void fail_launch(int n, cudaError_t error);
/// The last error, as cudaGetLastError gives it: once.
cudaError_t take_error();
/// Kernels that the program registered, sorted.
std::vector<std::string> registered_kernels();

}  // namespace dsmoe::fake_cuda
