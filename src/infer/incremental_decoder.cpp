#include "infer/incremental_decoder.h"

namespace dsmoe {

IncrementalDecoder::IncrementalDecoder(const Tokenizer& tokenizer, std::span<const int32_t> ids)
    : tokenizer_(&tokenizer) {
  for (size_t n = ids.size(); n > 0 && n_window_bytes_ == 0; --n) {
    window_ = {ids[n - 1]};
    n_window_bytes_ = tokenizer.decode(window_).size();
  }
  if (n_window_bytes_ > 0) return;
  // Each alone may give none and all together some: two blanks of which one is dropped.
  window_.assign(ids.begin(), ids.end());
  n_window_bytes_ = tokenizer.decode(window_).size();
}

std::string IncrementalDecoder::push(int32_t id) {
  window_.push_back(id);
  auto added = tokenizer_->decode(window_).substr(n_window_bytes_);
  if (n_window_bytes_ > 0) {
    window_.pop_back();
  } else {
    n_window_bytes_ = added.size();
  }
  return added;
}

}  // namespace dsmoe
