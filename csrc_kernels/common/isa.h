#pragma once

#include "common/cpu_features.h"

#ifdef DSMOE_ISA
namespace dsmoe {
inline namespace DSMOE_ISA {}
}  // namespace dsmoe
#endif

/// Declares the same functions in one namespace per instruction set. The file that defines them
/// is listed under dsmoe_add_isa_kernels and puts them into `namespace dsmoe::DSMOE_ISA`.
#define DSMOE_DECLARE_FOR_ISAS(...) \
  namespace kPortable {             \
  __VA_ARGS__                       \
  }                                 \
  namespace kAvx2 {                 \
  __VA_ARGS__                       \
  }                                 \
  namespace kAvx512 {               \
  __VA_ARGS__                       \
  }                                 \
  namespace kAvx512Bf16 {           \
  __VA_ARGS__                       \
  }

/// Calls `function(...)` of the widest instruction set that this CPU has; inside namespace dsmoe.
#define DSMOE_CALL_FOR_ISA(function, ...)   \
  do {                                      \
    switch (cpu_isa()) {                    \
      case CpuIsa::kPortable:               \
        kPortable::function(__VA_ARGS__);   \
        break;                              \
      case CpuIsa::kAvx2:                   \
        kAvx2::function(__VA_ARGS__);       \
        break;                              \
      case CpuIsa::kAvx512:                 \
        kAvx512::function(__VA_ARGS__);     \
        break;                              \
      case CpuIsa::kAvx512Bf16:             \
        kAvx512Bf16::function(__VA_ARGS__); \
        break;                              \
    }                                       \
  } while (false)
