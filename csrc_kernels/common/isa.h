#pragma once

#include "common/cpu_features.h"

/// Declares the same functions in one namespace per instruction set. The file that defines them
/// is listed under dsmoe_add_isa_kernels and puts them into `namespace dsmoe::DSMOE_ISA`.
#define DSMOE_DECLARE_FOR_ISAS(...) \
  namespace portable {              \
  __VA_ARGS__                       \
  }                                 \
  namespace avx2 {                  \
  __VA_ARGS__                       \
  }                                 \
  namespace avx512 {                \
  __VA_ARGS__                       \
  }                                 \
  namespace avx512bf16 {            \
  __VA_ARGS__                       \
  }

/// Calls `function(...)` of the widest instruction set that this CPU has; inside namespace dsmoe.
#define DSMOE_CALL_FOR_ISA(function, ...)  \
  do {                                     \
    switch (cpu_isa()) {                   \
      case CpuIsa::kPortable:              \
        portable::function(__VA_ARGS__);   \
        break;                             \
      case CpuIsa::kAvx2:                  \
        avx2::function(__VA_ARGS__);       \
        break;                             \
      case CpuIsa::kAvx512:                \
        avx512::function(__VA_ARGS__);     \
        break;                             \
      case CpuIsa::kAvx512Bf16:            \
        avx512bf16::function(__VA_ARGS__); \
        break;                             \
    }                                      \
  } while (false)
