#pragma once

#include <cstdint>

/// The memory of training steps. A step asks for the same sizes as the one before it: here a large
/// block that is freed waits for the next tensor of its size. In one heap, blocks of all sizes and
/// lifetimes leave gaps that no later tensor fits.
namespace dsmoe::step_memory {

/// Makes it the allocator of every CPU tensor from here on; again has no effect.
void install();

/// Returns the blocks that have waited since the last call to the system. Call between steps, every
/// few steps: what one of them uses is kept.
void trim();

/// Bytes of blocks of 64 KiB and above.
struct Usage {
  int64_t in_use = 0;
  int64_t waiting = 0;
};
Usage usage();

}  // namespace dsmoe::step_memory
