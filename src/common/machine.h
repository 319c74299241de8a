#pragma once

#include <string>

#include "common/cpu_features.h"

namespace dsmoe {

/// Returns the CPU's model name as the system tells it; `unknown CPU` where it tells none.
std::string cpu_model();

/// Returns `AVX512-BF16`, `AVX512`, `AVX2` or `SSE2`.
std::string name_of(CpuIsa isa);

/// Returns the value of DSMOE_CPU_ISA that selects it, such as `avx512bf16`.
std::string option_of(CpuIsa isa);

}  // namespace dsmoe
