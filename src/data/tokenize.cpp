#include "data/tokenize.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <span>

#include "common/error.h"
#include "common/standard_input.h"
#include "data/dataset_record.h"
#include "data/parallel_encoder.h"
#include "data/text_lines.h"
#include "data/text_reader.h"
#include "data/token_shard.h"
#include "data/token_shard_writer.h"
#include "data/tokenizer_files.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxThreads = 1024;

// Writes shards one after another and begins the next when one is full.
class ShardSeries {
 public:
  ShardSeries(Io& io, std::string directory, int64_t shard_tokens, DatasetRecord& record)
      : io_(io), directory_(std::move(directory)), shard_tokens_(shard_tokens), record_(record) {}

  void add(std::span<const int32_t> ids, bool starts_document) {
    if (ids.empty()) return;
    if (!shard_) open();
    if (starts_document) shard_->start_document();
    while (!ids.empty()) {
      if (!shard_) open();
      const auto n_free = static_cast<size_t>(shard_tokens_ - shard_->n_tokens());
      const auto part = ids.first(std::min(ids.size(), n_free));
      shard_->add(part);
      ids = ids.subspan(part.size());
      if (shard_->n_tokens() == shard_tokens_) finish();
    }
  }

  void finish() {
    if (!shard_) return;
    ShardRecord made = shard_->finish();
    shard_.reset();
    made.name = shard_name(record_.shards.size());
    const TokenShard check(directory_ + "/" + made.name);
    record_.n_tokens += check.size();
    record_.n_documents += check.n_documents();
    record_.shards.push_back(std::move(made));
  }

 private:
  void open() {
    shard_.emplace(io_,
                   directory_ + "/" + shard_name(record_.shards.size()),
                   record_.vocab_size,
                   record_.tokenizer);
  }

  Io& io_;
  std::string directory_;
  int64_t shard_tokens_;
  DatasetRecord& record_;
  std::optional<TokenShardWriter> shard_;
};

OutputDirectory output_of(const TokenizeOptions& options) {
  return {options.out, options.existing, DatasetRecord::kFileName};
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
  check_output_directory(output_of(options));
}

int64_t size_bytes(Io& io, const std::string& path) {
  if (path == kStandardInput) return static_cast<int64_t>(TextFile(io, path).file_bytes());
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) throw Error(fmt::format("{}: cannot open: {}", path, error.message()));
  return static_cast<int64_t>(size);
}

void encode_inputs(Io& io,
                   const TokenizeOptions& options,
                   const Tokenizer& tokenizer,
                   ShardSeries& shards,
                   DatasetRecord& record) {
  int64_t total_bytes = 0;
  for (const auto& path : options.inputs) total_bytes += size_bytes(io, path);
  int64_t done_bytes = 0;
  ParallelEncoder encoder(
      tokenizer, options.threads, [&](const std::vector<int32_t>& ids, bool starts_document) {
        shards.add(ids, starts_document);
      });
  for (const auto& path : options.inputs) {
    int64_t file_bytes = 0;
    read_text_parts(io, path, options.format, [&](const TextPart& part) {
      encoder.add(part);
      record.n_bytes += static_cast<int64_t>(part.text.size());
      file_bytes = static_cast<int64_t>(part.file_position);
      if (options.progress) options.progress(done_bytes + file_bytes, total_bytes);
    });
    done_bytes += file_bytes;
  }
  encoder.finish();
  shards.finish();
  if (record.n_tokens == 0) throw Error("tokenize: expected text that gives tokens, got none");
  if (options.progress) options.progress(total_bytes, total_bytes);
}

DatasetRecord write_dataset(Io& io,
                            const TokenizeOptions& options,
                            const Tokenizer& tokenizer,
                            const std::string& directory) {
  DatasetRecord record;
  record.vocab_size = tokenizer.vocab_size();
  record.tokenizer = tokenizer.fingerprint();
  ShardSeries shards(io, directory, options.shard_tokens, record);
  encode_inputs(io, options, tokenizer, shards, record);
  for (const auto& file : tokenizer_files(tokenizer)) {
    write_file(io, directory + "/" + file.name, file.bytes);
  }
  write_file(io, directory + "/" + DatasetRecord::kFileName, dataset_record_to_json(record));
  return record;
}

TokenizeResult result_of(const DatasetRecord& record) {
  TokenizeResult result;
  result.n_tokens = record.n_tokens;
  result.n_documents = record.n_documents;
  result.n_bytes = record.n_bytes;
  result.vocab_size = record.vocab_size;
  result.tokenizer = record.tokenizer;
  for (const ShardRecord& shard : record.shards) result.shards.push_back(shard.name);
  return result;
}

}  // namespace

TokenizeResult tokenize_files(Io& io, const TokenizeOptions& options) {
  check_options(options);
  for (const auto& path : options.inputs) warn_of_json_as_text(io, path, options.format.field);
  const auto tokenizer = make_tokenizer(options.tokenizer, options.inputs, options.format);
  DatasetRecord record;
  write_output_directory(io, output_of(options), [&](const std::string& directory) {
    record = write_dataset(io, options, *tokenizer, directory);
  });
  return result_of(record);
}

}  // namespace dsmoe
