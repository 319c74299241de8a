#pragma once

#include <string>
#include <vector>

namespace dsmoe {

/// Data-sheet values of a GPU.
struct GpuSpec {
  std::string name;
  double flops;             ///< bfloat16 matrix products without sparsity, operations per second
  double memory_bytes;      ///< of the device
  double bytes_per_second;  ///< read from its memory
  double link_bytes_per_second;  ///< to and from the other GPUs of its host, each way
  double float32_flops;          ///< operations per second outside the tensor cores
};

const std::vector<GpuSpec>& gpu_specs();

/// Throws Error that lists the known names.
const GpuSpec& find_gpu(const std::string& name);

}  // namespace dsmoe
