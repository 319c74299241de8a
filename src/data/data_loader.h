#pragma once

#include <cstdint>
#include <memory>

#include "data/batch.h"
#include "data/token_dataset.h"

namespace dsmoe {

struct DataLoaderConfig {
  int64_t seq_len = 1024;
  int64_t batch_size = 8;  ///< sequences per micro-batch
  uint64_t seed = 0;
  int64_t prefetch = 4;  ///< micro-batches made ahead by one thread; 0: none, made when asked
};

/// Endless training batches. What a batch holds is a function of (seed, position) only, where the
/// position counts sequences since the start of training: no rank, thread, micro-batch size or
/// resume changes the order. The thread reads ahead; it never changes what is read.
class DataLoader {
 public:
  /// Throws Error if the data set is shorter than one window of seq_len + 1 tokens.
  DataLoader(std::shared_ptr<const TokenDataset> dataset, const DataLoaderConfig& config);
  ~DataLoader();
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;

  /// The micro-batch at position(), which then moves on by batch_size. Rethrows what the prefetch
  /// thread met.
  Batch next();
  /// Sequences handed out since the start of training: the whole state of the loader.
  int64_t position() const;
  /// Goes on from another position; what was made ahead is dropped.
  void seek(int64_t position);
  /// Sequences per epoch.
  int64_t n_sequences() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dsmoe
