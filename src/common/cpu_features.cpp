#include "common/cpu_features.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace dsmoe {
namespace {

#if defined(__x86_64__)
CpuIsa detect() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (!avx2) return CpuIsa::kPortable;
  return avx512 ? CpuIsa::kAvx512 : CpuIsa::kAvx2;
}
#else
CpuIsa detect() { return CpuIsa::kPortable; }
#endif

CpuIsa choose() {
  const CpuIsa widest = detect();
  const char* value = std::getenv("DSMOE_CPU_ISA");
  const std::string_view asked = value == nullptr ? "" : value;
  if (asked == "portable") return CpuIsa::kPortable;
  if (asked == "avx2") return std::min(widest, CpuIsa::kAvx2);
  return widest;
}

}  // namespace

CpuIsa cpu_isa() {
  static const CpuIsa isa = choose();
  return isa;
}

bool has_fast_bfloat16() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

}  // namespace dsmoe
