#pragma once

namespace dsmoe {

/// Instruction sets that kernels are compiled for, each a superset of the one before.
enum class CpuIsa {
  kPortable,    ///< what the compiler assumes by default (SSE2 on x86_64)
  kAvx2,        ///< AVX2, FMA, F16C
  kAvx512,      ///< AVX512 F, BW, DQ, VL
  kAvx512Bf16,  ///< the same with dot products of bfloat16 (BF16) and int8 (VNNI)
};

/// Returns the widest instruction set of this CPU. DSMOE_CPU_ISA=portable|avx2|avx512|avx512bf16
/// lowers it for tests; an unknown value, or one above the CPU's, is ignored.
CpuIsa cpu_isa();

/// Returns whether the CPU has AMX tiles: libraries may then compute float32 products in bfloat16.
bool has_amx();

/// Returns whether the CPU multiplies bfloat16 at full speed (AVX512-BF16); without it such
/// products are tens of times slower than float32.
bool has_fast_bfloat16();

}  // namespace dsmoe
