#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace dsmoe {

/// Encodes documents side by side and gives out their tokens in the order they came, as
/// TokenDataset's stream: BOS, ids, EOS. What it gives out does not depend on the thread count.
class ParallelEncoder {
 public:
  using Sink = std::function<void(const std::vector<int32_t>& ids)>;

  ParallelEncoder(const Tokenizer& tokenizer, int threads, Sink sink);

  /// Keeps a copy of the text; now and then encodes what was kept. Throws what encoding throws.
  void add(std::string_view document);
  /// Encodes what is left.
  void finish();

 private:
  // A document or, where the tokenizer allows, some of its lines.
  struct Part {
    std::string text;
    bool is_first = false;
    bool is_last = false;
    std::vector<int32_t> ids;
  };

  void encode_parts();
  void encode(Part& part) const;

  const Tokenizer& tokenizer_;
  int threads_;
  Sink sink_;
  std::vector<Part> parts_;
  size_t kept_bytes_ = 0;
};

}  // namespace dsmoe
