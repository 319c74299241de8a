#include "common/machine.h"

#include <fstream>

namespace dsmoe {

std::string cpu_model() {
  std::ifstream lines("/proc/cpuinfo");
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t begin = line.find_first_not_of(" \t:", sizeof("model name") - 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  return "unknown CPU";
}

std::string name_of(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return "SSE2";
    case CpuIsa::kAvx2:
      return "AVX2";
    case CpuIsa::kAvx512:
      return "AVX512";
    case CpuIsa::kAvx512Bf16:
      return "AVX512-BF16";
  }
  return "";
}

std::string option_of(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return "portable";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Bf16:
      return "avx512bf16";
  }
  return "";
}

}  // namespace dsmoe
