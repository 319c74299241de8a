#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/io.h"
#include "common/staged_output.h"
#include "data/text_reader.h"

namespace dsmoe {

struct TokenizeOptions {
  std::vector<std::string> inputs;  ///< text or .jsonl files, also gzip or zstd
  TextFormat format;
  std::string tokenizer = "bytes";        ///< see make_tokenizer
  std::string out;                        ///< directory to make
  Existing existing = Existing::kRefuse;  ///< treatment of an earlier data set at `out`
  double validation = 0;  ///< share of the tokens for a second data set, for validation; 0: none
  int64_t shard_tokens = 100'000'000;
  int threads = 2;
  std::function<void(int64_t done_bytes, int64_t total_bytes)>
      progress;  ///< of files; may be empty
};

/// One data set that was written.
struct DatasetPart {
  std::string path;
  int64_t n_tokens = 0;
  int64_t n_documents = 0;
  int64_t n_bytes = 0;              ///< of text
  std::vector<std::string> shards;  ///< file names
};

/// The data sets of an output that is split, `OUT/train` and `OUT/valid`.
std::string train_part(const std::string& out);
std::string validation_part(const std::string& out);

struct TokenizeResult {
  int64_t n_tokens = 0;
  int64_t n_documents = 0;
  int64_t n_bytes = 0;
  int64_t vocab_size = 0;
  std::string tokenizer;            ///< fingerprint
  std::vector<std::string> shards;  ///< file names below `out`
  std::vector<DatasetPart> parts;   ///< the data set, or those for training and validation
};

/// Encodes files into a directory that TokenDataset opens. Encodes documents in parallel and writes
/// them in input order, so the shards do not depend on the thread count. Memory does not grow with
/// the corpus: it holds a window of text per thread and 8 bytes for each document of a shard, and a
/// sample of the text when it trains a tokenizer. With `validation` it splits by document, evenly
/// along the text, by a rule that sees only the tokens before each document; where that chooses
/// none, since there are few, the end of the text is for validation, and a document that is cut
/// counts in both. A trained tokenizer has seen the text of both. Each directory is complete or
/// absent
/// (staged_output.h). Throws Error for bad input and RunError for a failed write.
TokenizeResult tokenize_files(Io& io, const TokenizeOptions& options);

}  // namespace dsmoe
