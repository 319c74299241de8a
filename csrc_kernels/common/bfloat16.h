#pragma once

#include <cstdint>

namespace dsmoe {

/// A bfloat16 as stored; the layout of c10::BFloat16, without torch.
struct Bfloat16 {
  uint16_t bits;
};

}  // namespace dsmoe
