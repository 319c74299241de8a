#pragma once

#include <string>

#include "common/io.h"
#include "csrc_kernels/packed_linear/packed_layout.h"

namespace dsmoe {

/// Number type of the weights where none is named, and why.
struct DefaultDtype {
  PackedFormat format = PackedFormat::kFloat32;
  std::string reason;  ///< `as in training`
};

/// Returns the key train.compute_dtype of a checkpoint; empty if the checkpoint was converted.
/// Throws Error.
std::string read_trained_dtype(Io& io, const std::string& directory);

/// Returns bfloat16 for a model that was trained in it if the CPU multiplies it at full speed, else
/// float32.
///
/// trained        the key train.compute_dtype; empty: not known
/// fast_bfloat16  see has_fast_bfloat16
DefaultDtype default_dtype(const std::string& trained, bool fast_bfloat16);

}  // namespace dsmoe
