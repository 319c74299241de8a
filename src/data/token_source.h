#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace dsmoe {

/// One stream of tokens, made of documents one after another. May be read from several threads.
class TokenSource {
 public:
  virtual ~TokenSource() = default;

  virtual int64_t n_tokens() const = 0;
  virtual int64_t n_documents() const = 0;
  /// Changes with any token or document; 32 hex digits.
  virtual const std::string& hash() const = 0;
  /// Copies tokens [begin, begin + out.size()) of the stream. Throws Error outside the stream, and
  /// if the files have become shorter.
  virtual void copy(int64_t begin, std::span<int32_t> out) const = 0;
  /// Returns the positions in [begin, end) where a document starts, in order. Throws Error as copy
  /// does.
  virtual std::vector<int64_t> document_starts(int64_t begin, int64_t end) const = 0;
  /// Returns how many documents start before a position; the last of them contains the token before
  /// it.
  virtual int64_t documents_before(int64_t position) const = 0;
};

/// One corpus of a mixture.
struct WeightedSource {
  std::shared_ptr<const TokenSource> source;
  double weight = 1.0;  ///< share of the training sequences, up to a common factor
};

}  // namespace dsmoe
