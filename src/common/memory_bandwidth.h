#pragma once

namespace dsmoe {

/// Bytes per second at which kernel_threads() together read memory that no cache holds: the best of
/// seven sums over 1 GiB. The machine's ceiling for decoding; takes a third of a second or so after
/// the first call, which fills the memory. Give it back with release_bandwidth_memory.
double measure_read_bandwidth();

void release_bandwidth_memory();

}  // namespace dsmoe
