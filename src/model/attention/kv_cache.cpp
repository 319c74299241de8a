#include "model/attention/kv_cache.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <atomic>

namespace dsmoe {

KvCache::KvCache(const KvShape& shape, int64_t batch, int64_t capacity) : shape_(shape) {
  if (!shape.device.is_cpu() && batch > 0) {
    sequences_.resize(static_cast<size_t>(batch));
    for (auto& sequence : sequences_) sequence.capacity = capacity;
    set_batch(at::empty({shape.n_layers, 2, batch, shape.n_kv_heads, capacity, shape.head_dim},
                        shape.options()));
    return;
  }
  for (int64_t b = 0; b < batch; ++b) add_sequence(capacity);
}

// Makes the rows of `batch` the storage of the sequences.
void KvCache::set_batch(const at::Tensor& batch) {
  static std::atomic<uint64_t> n_storages{0};
  batch_ = batch;
  storage_id_ = ++n_storages;
  for (size_t b = 0; b < sequences_.size(); ++b) {
    auto& sequence = sequences_[b];
    sequence.keys.clear();
    sequence.values.clear();
    for (const auto& layer : batch.select(2, static_cast<int64_t>(b)).unbind()) {
      sequence.keys.push_back(layer[0]);
      sequence.values.push_back(layer[1]);
    }
  }
}

std::pair<at::Tensor, at::Tensor> KvCache::batched_rows(int64_t layer) const {
  const auto rows = batch_.select(0, layer);
  return {rows[0], rows[1]};
}

void KvCache::fill(int64_t layer, const at::Tensor& k, const at::Tensor& v) {
  auto [keys, values] = batched_rows(layer);
  TORCH_CHECK(is_empty() && k.size(2) <= keys.size(2),
              "KvCache: expected at most ",
              keys.size(2),
              " tokens in an empty cache, got ",
              k.size(2));
  keys.narrow(2, 0, k.size(2)).copy_(k);
  values.narrow(2, 0, v.size(2)).copy_(v);
}

bool KvCache::is_empty() const {
  return std::all_of(
      sequences_.begin(), sequences_.end(), [](const auto& s) { return s.length == 0; });
}

void KvCache::add_sequence(int64_t capacity) {
  TORCH_CHECK(!is_batched(), "KvCache: a batch on a device does not grow");
  Sequence sequence;
  sequence.capacity = capacity;
  // One allocation, so that it is freed as a whole; pages use memory once they are written.
  const auto all = at::empty({shape_.n_layers, 2, shape_.n_kv_heads, capacity, shape_.head_dim},
                             shape_.options());
  for (const auto& layer : all.unbind()) {
    sequence.keys.push_back(layer[0]);
    sequence.values.push_back(layer[1]);
  }
  sequences_.push_back(std::move(sequence));
}

void KvCache::keep(const std::vector<int64_t>& sequences) {
  std::vector<Sequence> kept;
  for (const int64_t b : sequences) kept.push_back(sequences_.at(static_cast<size_t>(b)));
  sequences_ = std::move(kept);
  if (is_batched()) {
    set_batch(batch_.index_select(2, at::tensor(sequences, at::kLong).to(shape_.device)));
  }
}

void KvCache::begin_pass(std::vector<PassSegment> segments) {
  segments_ = std::move(segments);
  is_rectangular_ = false;
  places_ = {};
  for (const auto& segment : segments_) {
    const int64_t begin = length(segment.sequence);
    for (int64_t i = 0; i < segment.n_tokens; ++i) {
      places_.sequence.push_back(segment.sequence);
      places_.position.push_back(begin + i);
    }
  }
}

void KvCache::begin_pass(int64_t seq) {
  std::vector<PassSegment> segments;
  for (int64_t b = 0; b < n_sequences(); ++b) {
    segments.push_back({b, seq, seq > 1 || length(b) == 0});
  }
  begin_pass(std::move(segments));
  is_rectangular_ = true;
}

std::pair<at::Tensor, at::Tensor> KvCache::append(int64_t layer,
                                                  const at::Tensor& k,
                                                  const at::Tensor& v) {
  const int64_t seq = k.size(2);
  TORCH_CHECK(is_rectangular_ && k.size(0) == n_sequences(),
              "KvCache: expected a batch of ",
              n_sequences(),
              ", got ",
              k.size(0),
              is_rectangular_ ? "" : "; a pass of segments needs packed weights");
  int64_t longest = 0;
  for (const auto& sequence : sequences_) longest = std::max(longest, sequence.length + seq);
  auto keys = at::zeros({k.size(0), k.size(1), longest, k.size(3)}, shape_.options());
  auto values = at::zeros(keys.sizes(), shape_.options());
  for (int64_t b = 0; b < k.size(0); ++b) {
    const auto& sequence = sequences_[static_cast<size_t>(b)];
    const int64_t end = sequence.length + seq;
    TORCH_CHECK(end <= sequence.capacity,
                "KvCache: expected at most ",
                sequence.capacity,
                " tokens, got ",
                end);
    const auto store =
        [&](const std::vector<at::Tensor>& layers, const at::Tensor& added, const at::Tensor& all) {
          const auto& stored = layers.at(static_cast<size_t>(layer));
          stored.narrow(1, sequence.length, seq).copy_(added[b]);
          all[b].narrow(1, 0, end).copy_(stored.narrow(1, 0, end));
        };
    store(sequence.keys, k, keys);
    store(sequence.values, v, values);
  }
  return {keys, values};
}

int64_t KvCache::longest_after_pass() const {
  int64_t longest = 0;
  for (const int64_t position : places_.position) longest = std::max(longest, position + 1);
  return longest;
}

KvRows KvCache::rows(int64_t layer) const {
  KvRows rows;
  for (const auto& sequence : sequences_) {
    rows.keys.push_back(sequence.keys.at(static_cast<size_t>(layer)));
    rows.values.push_back(sequence.values.at(static_cast<size_t>(layer)));
  }
  rows.places = &places_;
  return rows;
}

void KvCache::advance(const std::vector<int64_t>& counts) {
  TORCH_CHECK(counts.size() == sequences_.size(),
              "KvCache: expected ",
              sequences_.size(),
              " counts, got ",
              counts.size());
  for (size_t b = 0; b < counts.size(); ++b) sequences_[b].length += counts[b];
}

void KvCache::advance(int64_t seq) {
  for (auto& sequence : sequences_) sequence.length += seq;
}

void KvCache::advance_segments() {
  for (const auto& segment : segments_) {
    sequences_.at(static_cast<size_t>(segment.sequence)).length += segment.n_tokens;
  }
}

void KvCache::rewind(int64_t sequence, int64_t length) {
  auto& own = sequences_.at(static_cast<size_t>(sequence)).length;
  TORCH_CHECK(length >= 0 && length <= own,
              "KvCache: expected to keep 0 to ",
              own,
              " tokens, got ",
              length);
  own = length;
}

int64_t KvCache::length(int64_t sequence) const {
  return sequences_.at(static_cast<size_t>(sequence)).length;
}

int64_t KvCache::size_bytes() const {
  int64_t n_tokens = 0;
  for (const auto& sequence : sequences_) n_tokens += sequence.capacity;
  return n_tokens * shape_.bytes_per_token();
}

}  // namespace dsmoe
