#pragma once

#include <cstdint>

namespace dsmoe {

/// Cuts one stream of tokens into training sequences without padding: sequence i of an epoch is the
/// window of seq_len + 1 tokens (inputs and, one later, targets) that starts at i * seq_len +
/// shift. The shift in [0, seq_len) differs from epoch to epoch, so that the cuts do not repeat; a
/// stream of less than two windows limits the shift. A pure function of (seed, epoch, index).
class SequencePacker {
 public:
  /// Throws Error if the stream is shorter than one window.
  SequencePacker(int64_t n_tokens, int64_t seq_len, uint64_t seed);

  /// Returns the sequences per epoch, the same in every epoch: (n_tokens - seq_len) / seq_len
  /// rounded down, at least 1.
  int64_t n_sequences() const { return n_sequences_; }
  /// First token of the window.
  int64_t begin(int64_t epoch, int64_t index) const;

 private:
  int64_t n_tokens_;
  int64_t seq_len_;
  uint64_t seed_;
  int64_t n_sequences_;
};

}  // namespace dsmoe
