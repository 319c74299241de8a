#include "data/tokenize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "common/error.h"
#include "common/standard_input.h"
#include "data/dataset_record.h"
#include "data/parallel_encoder.h"
#include "data/shard_series.h"
#include "data/text_lines.h"
#include "data/text_reader.h"
#include "data/tokenizer_files.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxThreads = 1024;

OutputDirectory output_at(const TokenizeOptions& options, const std::string& path) {
  return {path, options.existing, DatasetRecord::kFileName};
}

void check_options(const TokenizeOptions& options) {
  if (options.inputs.empty()) throw Error("tokenize: expected at least one input file");
  if (options.out.empty()) throw Error("tokenize: expected an output directory");
  if (options.shard_tokens < 1) {
    throw Error(fmt::format("tokenize: expected shard_tokens >= 1, got {}", options.shard_tokens));
  }
  if (options.threads < 1 || options.threads > kMaxThreads) {
    throw Error(
        fmt::format("tokenize: expected 1 to {} threads, got {}", kMaxThreads, options.threads));
  }
  if (options.validation < 0 || options.validation >= 1) {
    throw Error(
        fmt::format("tokenize: expected a validation share in [0, 1), got {}", options.validation));
  }
  for (const auto& path : options.validation > 0
                              ? std::vector{train_part(options.out), validation_part(options.out)}
                              : std::vector{options.out}) {
    check_output_directory(output_at(options, path));
  }
}

int64_t size_bytes(Io& io, const std::string& path) {
  if (path == kStandardInput) return static_cast<int64_t>(TextFile(io, path).file_bytes());
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) throw Error(fmt::format("{}: cannot open: {}", path, error.message()));
  return static_cast<int64_t>(size);
}

// Reads and encodes every input into `sink`, in order.
void encode_inputs(Io& io,
                   const TokenizeOptions& options,
                   const Tokenizer& tokenizer,
                   const ParallelEncoder::Sink& sink) {
  int64_t total_bytes = 0;
  for (const auto& path : options.inputs) total_bytes += size_bytes(io, path);
  int64_t done_bytes = 0;
  ParallelEncoder encoder(tokenizer, options.threads, sink);
  for (const auto& path : options.inputs) {
    int64_t file_bytes = 0;
    read_text_parts(io, path, options.format, [&](const TextPart& part) {
      encoder.add(part);
      file_bytes = static_cast<int64_t>(part.file_position);
      if (options.progress) options.progress(done_bytes + file_bytes, total_bytes);
    });
    done_bytes += file_bytes;
  }
  encoder.finish();
  if (options.progress) options.progress(total_bytes, total_bytes);
}

// A directory of shards while it is made.
struct Part {
  Part(Io& io, const TokenizeOptions& options, const Tokenizer& tokenizer, std::string path)
      : directory(std::move(path)),
        record{.vocab_size = tokenizer.vocab_size(),
               .tokenizer = tokenizer.fingerprint(),
               .shards = {}},
        shards(io, directory, options.shard_tokens, record) {}

  void finish(Io& io, const Tokenizer& tokenizer) {
    shards.finish();
    if (record.n_tokens == 0) throw Error("tokenize: expected text that gives tokens, got none");
    for (const auto& file : tokenizer_files(tokenizer)) {
      write_file(io, directory + "/" + file.name, file.bytes);
    }
    write_file(io, directory + "/" + DatasetRecord::kFileName, dataset_record_to_json(record));
  }

  std::string directory;
  DatasetRecord record;
  ShardSeries shards;
};

// Chooses documents for validation evenly along the text, by the tokens before each: a function of
// their order alone.
class DocumentSplit {
 public:
  explicit DocumentSplit(double share) : share_(share) {}

  /// Returns whether the document is for validation, if so many tokens came before it.
  bool takes_next(int64_t n_train, int64_t n_validation) {
    const auto n_before = static_cast<double>(n_train + n_validation);
    const double mean = n_documents_ > 0 ? n_before / static_cast<double>(n_documents_) : 0;
    ++n_documents_;
    return mean > 0 && static_cast<double>(n_validation) + mean / 2 <= share_ * (n_before + mean);
  }

 private:
  double share_;
  int64_t n_documents_ = 0;
};

// Bytes of the text of tokens.
int64_t text_bytes(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  return static_cast<int64_t>(tokenizer.decode(ids).size());
}

// Too few documents to choose from: the end of the text.
void take_end(Io& io, double share, const Tokenizer& tokenizer, Part& train, Part& validation) {
  train.shards.finish();
  const int64_t n_tokens = train.record.n_tokens;
  if (n_tokens < 2) throw Error("tokenize: expected 2 tokens or more to split, got fewer");
  const auto n_end = std::llround(share * static_cast<double>(n_tokens));
  move_tail(io,
            train.directory,
            train.record,
            std::clamp<int64_t>(n_end, 1, n_tokens - 1),
            validation.shards,
            [&](const std::vector<int32_t>& ids) { return text_bytes(tokenizer, ids); });
}

void encode_split(Io& io,
                  const TokenizeOptions& options,
                  const Tokenizer& tokenizer,
                  Part& train,
                  Part& validation) {
  DocumentSplit split(options.validation);
  bool validates = false;
  encode_inputs(io, options, tokenizer, [&](const auto& ids, bool starts_document, int64_t n) {
    if (starts_document) {
      validates = split.takes_next(train.shards.n_tokens(), validation.shards.n_tokens());
    }
    (validates ? validation : train).shards.add(ids, starts_document, n);
  });
  if (validation.shards.n_tokens() == 0) {
    take_end(io, options.validation, tokenizer, train, validation);
  }
}

DatasetPart part_of(const DatasetRecord& record, const std::string& path) {
  DatasetPart part{.path = path,
                   .n_tokens = record.n_tokens,
                   .n_documents = record.n_documents,
                   .n_bytes = record.n_bytes,
                   .shards = {}};
  for (const ShardRecord& shard : record.shards) part.shards.push_back(shard.name);
  return part;
}

DatasetPart write_whole(Io& io, const TokenizeOptions& options, const Tokenizer& tokenizer) {
  DatasetRecord record;
  write_output_directory(io, output_at(options, options.out), [&](const std::string& directory) {
    Part part(io, options, tokenizer, directory);
    encode_inputs(io, options, tokenizer, [&](const auto& ids, bool starts, int64_t n_bytes) {
      part.shards.add(ids, starts, n_bytes);
    });
    part.finish(io, tokenizer);
    record = part.record;
  });
  return part_of(record, options.out);
}

// Each of the two is complete or absent; validation appears first.
std::vector<DatasetPart> write_split(Io& io,
                                     const TokenizeOptions& options,
                                     const Tokenizer& tokenizer) {
  const auto train_path = train_part(options.out);
  const auto validation_path = validation_part(options.out);
  make_directories(io, options.out);
  std::vector<DatasetPart> parts;
  write_output_directory(io, output_at(options, train_path), [&](const std::string& train_made) {
    Part train(io, options, tokenizer, train_made);
    write_output_directory(
        io, output_at(options, validation_path), [&](const std::string& validation_made) {
          Part validation(io, options, tokenizer, validation_made);
          encode_split(io, options, tokenizer, train, validation);
          validation.finish(io, tokenizer);
          train.finish(io, tokenizer);
          parts = {part_of(train.record, train_path), part_of(validation.record, validation_path)};
        });
  });
  return parts;
}

}  // namespace

std::string train_part(const std::string& out) { return out + "/train"; }
std::string validation_part(const std::string& out) { return out + "/valid"; }

TokenizeResult tokenize_files(Io& io, const TokenizeOptions& options) {
  check_options(options);
  for (const auto& path : options.inputs) warn_of_json_as_text(io, path, options.format.field);
  const auto tokenizer = make_tokenizer(options.tokenizer, options.inputs, options.format);
  TokenizeResult result;
  result.vocab_size = tokenizer->vocab_size();
  result.tokenizer = tokenizer->fingerprint();
  result.parts = options.validation > 0 ? write_split(io, options, *tokenizer)
                                        : std::vector{write_whole(io, options, *tokenizer)};
  for (const auto& part : result.parts) {
    result.n_tokens += part.n_tokens;
    result.n_documents += part.n_documents;
    result.n_bytes += part.n_bytes;
    const auto below =
        part.path == options.out ? "" : fs::path(part.path).filename().string() + "/";
    for (const auto& shard : part.shards) result.shards.push_back(below + shard);
  }
  return result;
}

}  // namespace dsmoe
