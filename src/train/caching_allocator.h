#pragma once

#include <cstdint>

/// A caching allocator of CPU tensors. A training step asks for the same sizes as the one before
/// it: a large block that a tensor frees waits for the next tensor of its size. In one heap, blocks
/// of all sizes and lifetimes leave gaps that no later tensor fits.
namespace dsmoe::caching_allocator {

/// Makes it the allocator of every CPU tensor from here on; a second call has no effect.
void install();

/// Returns the blocks that have waited since the last call to the system. Call between steps, every
/// few steps: blocks that one of them used are kept.
void trim();

/// Returns all waiting blocks to the system: after work that no later step repeats.
void release_waiting();

/// Bytes of CPU tensors since install(). All of them are counted, not sampled: one program takes
/// the same on every machine as long as its threads and the shapes of its tensors are the same.
struct Usage {
  int64_t in_use = 0;   ///< blocks of 64 KiB and above that a tensor has, with their rounding
  int64_t waiting = 0;  ///< such blocks that no tensor has
  int64_t tensors = 0;  ///< of tensors of every size, as they asked for them
  int64_t held = 0;     ///< the same, and what waiting blocks keep of earlier tensors
  int64_t peak_tensors = 0;
  int64_t peak_held = 0;
};
Usage usage();

/// Sets the peaks to the present values.
void reset_peaks();

}  // namespace dsmoe::caching_allocator
