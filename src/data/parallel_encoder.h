#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "data/text_reader.h"
#include "data/tokenizer.h"

namespace dsmoe {

/// Encodes documents in parallel and returns their tokens in input order, as TokenDataset's stream:
/// BOS, ids, EOS. The output does not depend on the thread count. Holds a window of a few megabytes
/// per thread. Encodes a longer document in parts; refuses a document in which the tokenizer finds
/// no place to cut within kMaxUndividedBytes.
class ParallelEncoder {
 public:
  static constexpr size_t kMaxUndividedBytes = size_t{16} << 20;

  /// Takes the next tokens and the bytes of text that they encode; called on the thread that calls
  /// add and finish.
  using Sink =
      std::function<void(const std::vector<int32_t>& ids, bool starts_document, int64_t n_bytes)>;

  /// threads  number of encoding threads, the caller's included
  ParallelEncoder(const Tokenizer& tokenizer, int threads, Sink sink);
  ~ParallelEncoder();
  ParallelEncoder(const ParallelEncoder&) = delete;
  ParallelEncoder& operator=(const ParallelEncoder&) = delete;

  /// Throws the exceptions of encoding and of the sink, and Error for a text that cannot be
  /// divided. Holds a part longer than a megabyte as a whole.
  void add(const TextPart& part);
  /// Encodes and emits the rest.
  void finish();
  /// Returns the bytes of the longest text that the tokenizer received at once.
  size_t longest_text_bytes() const { return longest_text_bytes_; }

 private:
  // A document or a piece that may be encoded separately.
  struct Piece {
    std::string text;
    bool is_first = false;
    bool is_last = false;
    std::vector<int32_t> ids;
    int64_t n_bytes = 0;
  };
  // The work of one thread at a time.
  struct Job {
    std::vector<Piece> pieces;
    std::exception_ptr error;
    bool done = false;
  };

  void keep(std::string text, bool is_last);
  void submit();
  void give_out_oldest();
  void give_out(Job& job);
  void encode(Job& job) const;
  bool encode_one(std::unique_lock<std::mutex>& lock);
  void work();

  const Tokenizer& tokenizer_;
  size_t max_jobs_;
  Sink sink_;
  std::string pending_;  // text of the current document that is in no piece yet
  bool pending_is_first_ = true;
  size_t divide_at_bytes_;
  size_t longest_text_bytes_ = 0;
  std::unique_ptr<Job> filling_;
  size_t filling_bytes_ = 0;
  std::deque<std::unique_ptr<Job>> window_;  // oldest first; only the caller's thread changes it

  std::mutex mutex_;  // guards the members below, and each job's `done`
  std::condition_variable has_work_;
  std::condition_variable has_result_;
  std::deque<Job*> waiting_;
  bool stopping_ = false;
  std::vector<std::jthread> threads_;  // last: they end before the other members
};

}  // namespace dsmoe
