#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace dsmoe {

/// One micro-batch.
struct Batch {
  at::Tensor tokens;                // [batch, seq] int64
  at::Tensor targets;               // [batch, seq] int64, the next token of each
  at::Tensor document_positions{};  // [batch, seq] int64, of each token in its document, from 0;
                                    // undefined unless asked for
  std::vector<int64_t> positions;   // [batch], of each sequence in the training stream, from 0
};

}  // namespace dsmoe
