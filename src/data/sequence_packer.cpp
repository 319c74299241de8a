#include "data/sequence_packer.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/error.h"
#include "common/random_seed.h"

namespace dsmoe {

SequencePacker::SequencePacker(int64_t n_tokens, int64_t seq_len, uint64_t seed)
    : n_tokens_(n_tokens), seq_len_(seq_len), seed_(seed), n_sequences_(0) {
  if (seq_len < 1) {
    throw Error(fmt::format("sequence packer: expected seq_len >= 1, got {}", seq_len));
  }
  if (n_tokens <= seq_len) {
    throw Error(
        fmt::format("sequence packer: expected at least seq_len + 1 = {} tokens, got {}; give more "
                    "text or a smaller seq_len",
                    seq_len + 1,
                    n_tokens));
  }
  n_sequences_ = std::max<int64_t>(1, n_tokens / seq_len - 1);
}

int64_t SequencePacker::begin(int64_t epoch, int64_t index) const {
  const int64_t n_shifts = std::min(seq_len_, n_tokens_ - n_sequences_ * seq_len_);
  const uint64_t drawn = derive_seed(seed_, "sequence shift", static_cast<uint64_t>(epoch));
  return index * seq_len_ + static_cast<int64_t>(drawn % static_cast<uint64_t>(n_shifts));
}

}  // namespace dsmoe
