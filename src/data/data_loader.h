#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/batch.h"
#include "data/token_source.h"

namespace dsmoe {

struct DataLoaderConfig {
  int64_t seq_len = 1024;
  int64_t batch_size = 8;  ///< sequences per micro-batch
  uint64_t seed = 0;
  int64_t prefetch = 4;        ///< micro-batches made ahead by one thread; 0: none, made when asked
  bool document_mask = false;  ///< fill Batch::document_positions
  bool pinned = false;         ///< batches in memory that a GPU copies from on its own
  int64_t rank = 0;            ///< of n_ranks that share each micro-step's sequences evenly
  int64_t n_ranks = 1;
};

/// Where a training sequence comes from.
struct TrainingSample {
  size_t corpus;  // index into the sources
  int64_t epoch;  // of that corpus
  int64_t index;  // of the sequence in its corpus
  int64_t begin;  // first token in the corpus's stream
};

/// Endless training batches. What a batch holds is a function of (seed, position) only, where the
/// position counts sequences since the start of training over all ranks: no rank, thread,
/// micro-batch size or resume changes the order. Corpora are mixed by CorpusMix; each gives every
/// one of its sequences once an epoch of its own. The thread reads ahead; it never changes what is
/// read.
class DataLoader {
 public:
  /// Throws Error if a corpus is shorter than one window of seq_len + 1 tokens.
  DataLoader(std::vector<WeightedSource> sources, const DataLoaderConfig& config);
  /// One corpus.
  DataLoader(std::shared_ptr<const TokenSource> source, const DataLoaderConfig& config);
  ~DataLoader();
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;

  /// This rank's part of the micro-step at position(): of batch_size * n_ranks sequences in a row,
  /// batch_size from rank * batch_size on. The position then moves behind them. Rethrows what the
  /// prefetch thread met.
  Batch next();
  /// Sequences handed out to all ranks since the start of training: the whole state of the loader.
  int64_t position() const;
  /// Goes on from another position; what was made ahead is dropped.
  void seek(int64_t position);
  /// Sequences in an epoch of one corpus.
  int64_t n_sequences(size_t corpus = 0) const;
  /// What stands at any position.
  TrainingSample sample(int64_t position) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dsmoe
