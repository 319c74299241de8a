#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"

namespace dsmoe {

/// C [m, n] = A [m, k] . B [k, n]; with add, C += A . B. ld_ are row lengths in elements. For
/// bfloat16, B holds its rows in pairs, [k / 2, n, 2], and k is even. oneDNN compiles each
/// combination of sizes at its first call in each thread (about 50 us, 25 KB that are never freed):
/// use few combinations.
template <typename B, typename W>
using BlockProduct = void (*)(int64_t m,
                              int64_t n,
                              int64_t k,
                              int64_t ld_a,
                              int64_t ld_b,
                              int64_t ld_c,
                              bool add,
                              const B* a,
                              const B* b,
                              W* c);

/// Types for which oneDNN multiplies blocks; a plain loop multiplies the others.
enum class BlockProducts {
  kPortable,  ///< none
  kFloat32,   ///< float32; the caller converts bfloat16 to it
  kBfloat16,  ///< float32 and bfloat16
};

/// The fastest of them on this CPU, tried once.
BlockProducts fastest_block_products();

/// Returns a product. <Bfloat16, float> requires kBfloat16; <float, float> and <double, double>
/// take any.
template <typename B, typename W>
BlockProduct<B, W> block_product(BlockProducts products);

/// Releases the CPU state (AMX tiles) that products hold; each thread calls it when it is done.
void release_block_products(BlockProducts products);

/// W is float or double.
template <typename W>
struct BlockProductKernels {
  BlockProduct<W, W> multiply;  ///< a plain loop
};

}  // namespace dsmoe
