#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"

namespace dsmoe {

/// C [m, n] = A [m, k] . B [k, n], or C += with add; ld_ are row lengths in elements. For bfloat16
/// B holds its rows in pairs, [k / 2, n, 2], and k is even. Each combination of sizes is compiled
/// at its first call in each thread (about 50 us, 25 KB for good): keep to a small set of them.
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

/// Types whose blocks are multiplied by oneDNN; others go through a plain loop.
enum class BlockProducts {
  kPortable,  ///< none
  kFloat32,   ///< float32; bfloat16 is to be converted to it
  kBfloat16,  ///< float32 and bfloat16
};

/// The most that this CPU can, found once by trying.
BlockProducts fastest_block_products();

/// Of type <Bfloat16, float> only with kBfloat16; <float, float> and <double, double> always.
template <typename B, typename W>
BlockProduct<B, W> block_product(BlockProducts products);

/// Gives back what the products hold of the CPU's state; at the end of each thread's work.
void release_block_products(BlockProducts products);

/// W is float or double.
template <typename W>
struct BlockProductKernels {
  BlockProduct<W, W> multiply;  ///< a plain loop
};

}  // namespace dsmoe
