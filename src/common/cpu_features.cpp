#include "common/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

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
  const bool dot_products =
      __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  if (!avx2) return CpuIsa::kPortable;
  if (!avx512) return CpuIsa::kAvx2;
  return dot_products ? CpuIsa::kAvx512Bf16 : CpuIsa::kAvx512;
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
  if (asked == "avx512") return std::min(widest, CpuIsa::kAvx512);
  return widest;
}

}  // namespace

CpuIsa cpu_isa() {
  static const CpuIsa isa = choose();
  return isa;
}

bool has_amx() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAmxTile = 1U << 24;  // of leaf 7, register d
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kAmxTile) != 0;
#else
  return false;
#endif
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
