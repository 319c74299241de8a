#include "support/fake_cuda_runtime.h"

#include <cuda_runtime_api.h>
#include <cxxabi.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <utility>

namespace dsmoe::fake_cuda {
namespace {

struct Runtime {
  std::map<const void*, std::string> names;  // of the stub of each registered kernel
  std::map<std::string, Kernel> kernels;
  std::vector<Launch> launches;
  Launch configured;  // by the launch that is being prepared
  cudaError_t last_error = cudaSuccess;
  cudaError_t failure = cudaSuccess;
  int launches_to_failure = 0;
};

// Kernels register themselves before main.
Runtime& runtime() {
  static Runtime instance;
  return instance;
}

std::string plain_name(const char* mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(mangled, nullptr, nullptr, &status), std::free);
  const std::string name = status == 0 ? text.get() : mangled;
  return name.substr(0, name.find('('));
}

// As a GPU of compute capability 8.0 to 10.0 without raised limits.
bool is_valid(const Launch& launch) {
  const auto in = [](unsigned value, unsigned limit) { return value >= 1 && value <= limit; };
  return in(launch.grid.x, 0x7fffffffU) && in(launch.grid.y, 65535) && in(launch.grid.z, 65535) &&
         in(launch.block.x, 1024) && in(launch.block.y, 1024) && in(launch.block.z, 64) &&
         launch.block.x * launch.block.y * launch.block.z <= 1024 &&
         launch.shared_bytes <= size_t{48} << 10;
}

cudaError_t start(const void* stub, const Launch& configured, void** arguments) {
  auto& rt = runtime();
  Launch launch = configured;
  launch.kernel = rt.names.at(stub);
  cudaError_t error = is_valid(launch) ? cudaSuccess : cudaErrorInvalidConfiguration;
  if (rt.launches_to_failure > 0 && --rt.launches_to_failure == 0) error = rt.failure;
  if (error != cudaSuccess) return rt.last_error = error;
  rt.launches.push_back(launch);
  const auto kernel = rt.kernels.find(launch.kernel);
  if (kernel != rt.kernels.end()) kernel->second(launch, arguments);
  return cudaSuccess;
}

}  // namespace

void reset() {
  auto& rt = runtime();
  rt.kernels.clear();
  rt.launches.clear();
  rt.last_error = cudaSuccess;
  rt.launches_to_failure = 0;
}

void set_kernel(const std::string& name, Kernel kernel) {
  runtime().kernels[name] = std::move(kernel);
}

const std::vector<Launch>& launches() { return runtime().launches; }

void fail_launch(int n, cudaError_t error) {
  runtime().launches_to_failure = n;
  runtime().failure = error;
}

cudaError_t take_error() { return std::exchange(runtime().last_error, cudaSuccess); }

std::vector<std::string> registered_kernels() {
  std::map<std::string, int> sorted;
  for (const auto& [stub, name] : runtime().names) ++sorted[name];
  std::vector<std::string> names;
  for (const auto& [name, count] : sorted) names.push_back(name);
  return names;
}

}  // namespace dsmoe::fake_cuda

// Definitions of the module for cuda_context.cuh.
namespace dsmoe::device {

cudaStream_t current_stream() { return fake_cuda::kStream; }
void check_launch() {}

}  // namespace dsmoe::device

// Functions that the host code of a .cu file calls, as nvcc 13.0 compiles it.
using dsmoe::fake_cuda::runtime;

extern "C" {

void** __cudaRegisterFatBinary(void* binary) { return static_cast<void**>(binary); }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

void __cudaRegisterFunction(void**,
                            const char* stub,
                            char*,
                            const char* name,
                            int,
                            uint3*,
                            uint3*,
                            dim3*,
                            dim3*,
                            int*) {
  runtime().names[stub] = dsmoe::fake_cuda::plain_name(name);
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  runtime().configured = {{}, grid, block, shared, stream};
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  const auto& configured = runtime().configured;
  *grid = configured.grid;
  *block = configured.block;
  *shared = configured.shared_bytes;
  *static_cast<cudaStream_t*>(stream) = configured.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(stub));
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel,
                               dim3 grid,
                               dim3 block,
                               void** arguments,
                               size_t shared,
                               cudaStream_t stream) {
  return dsmoe::fake_cuda::start(kernel, {{}, grid, block, shared, stream}, arguments);
}

cudaError_t cudaGetLastError() { return dsmoe::fake_cuda::take_error(); }
cudaError_t cudaPeekAtLastError() { return runtime().last_error; }

// Functions by which CUB queries the only device.
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor   ? 9
           : attribute == cudaDevAttrComputeCapabilityMinor ? 0
                                                            : 132;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->ptxVersion = attributes->binaryVersion = 90;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n_blocks,
                                                                   const void*,
                                                                   int,
                                                                   size_t,
                                                                   unsigned) {
  return *n_blocks = 1, cudaSuccess;
}

}  // extern "C"
