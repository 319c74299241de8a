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
  bool pinned = false;         ///< batches in pinned memory, for asynchronous copies to a GPU
  int64_t rank = 0;            ///< of n_ranks that share each micro-step's sequences evenly
  int64_t n_ranks = 1;
};

/// Origin of a training sequence.
struct TrainingSample {
  size_t corpus;  // index into the sources
  int64_t epoch;  // of that corpus
  int64_t index;  // of the sequence in its corpus
  int64_t begin;  // first token in the corpus's stream
};

/// Endless training batches. The content of a batch is a function of (seed, position) only, and the
/// position counts sequences since the start of training over all ranks: no rank, thread,
/// micro-batch size or resume changes the order. CorpusMix mixes the corpora; each corpus gives
/// every sequence once per epoch of that corpus. The thread only reads ahead; it does not change
/// the order.
class DataLoader {
 public:
  /// Throws Error if a corpus is shorter than one window of seq_len + 1 tokens.
  DataLoader(std::vector<WeightedSource> sources, const DataLoaderConfig& config);
  /// One corpus.
  DataLoader(std::shared_ptr<const TokenSource> source, const DataLoaderConfig& config);
  ~DataLoader();
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;

  /// Returns this rank's part of the micro-step at position(): of batch_size * n_ranks consecutive
  /// sequences, batch_size from rank * batch_size on. Moves the position behind all of them.
  /// Rethrows exceptions of the prefetch thread.
  Batch next();
  /// Returns the sequences handed out to all ranks since the start of training: the whole state of
  /// the loader.
  int64_t position() const;
  /// Continues from another position; drops batches made ahead.
  void seek(int64_t position);
  /// Returns the sequences in an epoch of one corpus.
  int64_t n_sequences(size_t corpus = 0) const;
  /// Maps a stream position to corpus, epoch, index and first token.
  TrainingSample sample(int64_t position) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dsmoe
