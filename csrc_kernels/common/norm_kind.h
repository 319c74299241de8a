#pragma once

namespace dsmoe {

/// LayerNorm subtracts the mean of a row, RMSNorm does not.
enum class NormKind { kLayerNorm, kRmsNorm };

}  // namespace dsmoe
