#include "report/gpu_specs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "common/error.h"

namespace dsmoe {

const std::vector<GpuSpec>& gpu_specs() {
  // NVIDIA's data sheets: A100 80GB SXM, H100 SXM, H200 SXM with NVLink, L40S with PCIe 4.0 x16.
  static const std::vector<GpuSpec> specs{{"a100", 312e12, 80e9, 2.039e12, 300e9, 19.5e12},
                                          {"h100", 989.4e12, 80e9, 3.35e12, 450e9, 67e12},
                                          {"h200", 989.4e12, 141e9, 4.8e12, 450e9, 67e12},
                                          {"l40s", 362.05e12, 48e9, 0.864e12, 32e9, 91.6e12}};
  return specs;
}

const GpuSpec& find_gpu(const std::string& name) {
  std::vector<std::string> names;
  std::string lower = name;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  for (const auto& spec : gpu_specs()) {
    if (spec.name == lower) return spec;
    names.push_back(spec.name);
  }
  throw Error(fmt::format("--gpu: expected one of {}, got '{}'", fmt::join(names, ", "), name));
}

}  // namespace dsmoe
