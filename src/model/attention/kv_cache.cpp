#include "model/attention/kv_cache.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace dsmoe {

KvCache::KvCache(int64_t n_layers,
                 int64_t batch,
                 int64_t n_kv_heads,
                 int64_t capacity,
                 int64_t head_dim,
                 at::ScalarType dtype)
    : capacity_(capacity), lengths_(static_cast<size_t>(batch), 0) {
  for (int64_t i = 0; i < n_layers; ++i) {
    // Zeros: positions that a shorter sequence has not reached are masked, but must stay finite.
    keys_.push_back(at::zeros({batch, n_kv_heads, capacity, head_dim}, dtype));
    values_.push_back(at::zeros({batch, n_kv_heads, capacity, head_dim}, dtype));
  }
}

std::pair<at::Tensor, at::Tensor> KvCache::append(int64_t layer,
                                                  const at::Tensor& k,
                                                  const at::Tensor& v) {
  const int64_t seq = k.size(2);
  TORCH_CHECK(k.size(0) == static_cast<int64_t>(lengths_.size()),
              "KvCache: expected a batch of ",
              lengths_.size(),
              ", got ",
              k.size(0));
  auto& keys = keys_[static_cast<size_t>(layer)];
  auto& values = values_[static_cast<size_t>(layer)];
  int64_t longest = 0;
  for (size_t b = 0; b < lengths_.size(); ++b) {
    TORCH_CHECK(lengths_[b] + seq <= capacity_,
                "KvCache: expected at most ",
                capacity_,
                " tokens, got ",
                lengths_[b] + seq);
    const auto index = static_cast<int64_t>(b);
    keys.select(0, index).narrow(1, lengths_[b], seq).copy_(k.select(0, index));
    values.select(0, index).narrow(1, lengths_[b], seq).copy_(v.select(0, index));
    longest = std::max(longest, lengths_[b] + seq);
  }
  return {keys.narrow(2, 0, longest), values.narrow(2, 0, longest)};
}

KvRows KvCache::rows(int64_t layer) const {
  return {keys_.at(static_cast<size_t>(layer)), values_.at(static_cast<size_t>(layer)), &lengths_};
}

bool KvCache::is_empty() const {
  return std::all_of(lengths_.begin(), lengths_.end(), [](int64_t n) { return n == 0; });
}

at::Tensor KvCache::next_positions(int64_t seq) const {
  const auto starts = at::tensor(lengths_, at::kLong).unsqueeze(1);  // [batch, 1]
  return starts + at::arange(seq, at::kLong);
}

void KvCache::advance(const std::vector<int64_t>& counts) {
  TORCH_CHECK(counts.size() == lengths_.size(),
              "KvCache: expected ",
              lengths_.size(),
              " counts, got ",
              counts.size());
  for (size_t b = 0; b < lengths_.size(); ++b) lengths_[b] += counts[b];
}

void KvCache::advance(int64_t seq) {
  for (auto& length : lengths_) length += seq;
}

void KvCache::keep(const std::vector<int64_t>& sequences) {
  const auto index = at::tensor(sequences, at::kLong);
  for (auto& keys : keys_) keys = keys.index_select(0, index);
  for (auto& values : values_) values = values.index_select(0, index);
  std::vector<int64_t> lengths;
  for (const int64_t b : sequences) lengths.push_back(lengths_.at(static_cast<size_t>(b)));
  lengths_ = std::move(lengths);
}

}  // namespace dsmoe
