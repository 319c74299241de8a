#pragma once

namespace dsmoe {

/// Returns the bytes per second at which kernel_threads() threads together read memory outside all
/// caches: the best of seven sums over 1 GiB. It is the machine's ceiling for decoding. Takes about
/// a third of a second; the first call also fills the memory. Free the memory with
/// release_bandwidth_memory.
double measure_read_bandwidth();

void release_bandwidth_memory();

}  // namespace dsmoe
