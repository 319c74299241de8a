#include "data/tokenize.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <limits>

#include "common/error.h"
#include "common/log.h"
#include "data/dataset_record.h"
#include "data/parallel_encoder.h"
#include "data/text_reader.h"
#include "data/token_shard.h"
#include "data/tokenizer_files.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxThreads = 1024;

bool exists(const std::string& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

// Fills shards and writes each when it is full.
class ShardWriter {
 public:
  ShardWriter(Io& io, std::string directory, int64_t shard_tokens, DatasetRecord& record)
      : io_(io),
        directory_(std::move(directory)),
        shard_tokens_(static_cast<size_t>(shard_tokens)),
        record_(record) {}

  void add(const std::vector<int32_t>& ids) {
    for (size_t begin = 0; begin < ids.size();) {
      const size_t end = std::min(ids.size(), begin + (shard_tokens_ - tokens_.size()));
      tokens_.insert(tokens_.end(),
                     ids.begin() + static_cast<ptrdiff_t>(begin),
                     ids.begin() + static_cast<ptrdiff_t>(end));
      begin = end;
      if (tokens_.size() == shard_tokens_) flush();
    }
  }

  void flush() {
    if (tokens_.empty()) return;
    const std::string name = shard_name(record_.shards.size());
    const std::string path = directory_ + "/" + name;
    write_token_shard(io_, path, tokens_, record_.vocab_size);
    const TokenShard shard(path);
    record_.shards.push_back({name, shard.size(), shard.payload_hash()});
    record_.n_tokens += shard.size();
    tokens_.clear();
  }

 private:
  Io& io_;
  std::string directory_;
  size_t shard_tokens_;
  DatasetRecord& record_;
  std::vector<int32_t> tokens_;
};

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
  if (exists(options.out)) {
    throw Error(fmt::format("{}: expected no such directory; remove it or choose another name",
                            options.out));
  }
}

int64_t size_bytes(const std::string& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) throw Error(fmt::format("{}: cannot open: {}", path, error.message()));
  return static_cast<int64_t>(size);
}

void encode_inputs(const TokenizeOptions& options,
                   const Tokenizer& tokenizer,
                   ShardWriter& writer,
                   DatasetRecord& record) {
  int64_t total_bytes = 0;
  for (const auto& path : options.inputs) total_bytes += size_bytes(path);
  int64_t done_bytes = 0;
  ParallelEncoder encoder(
      tokenizer, options.threads, [&](const std::vector<int32_t>& ids) { writer.add(ids); });
  for (const auto& path : options.inputs) {
    const int64_t file_size = size_bytes(path);
    int64_t file_bytes = 0;
    read_documents(path, [&](std::string_view text) {
      encoder.add(text);
      ++record.n_documents;
      file_bytes += static_cast<int64_t>(text.size());
      // A .jsonl file may hold less or more text than bytes: never report more than the file has.
      if (options.progress) {
        options.progress(done_bytes + std::min(file_bytes, file_size), total_bytes);
      }
    });
    record.n_bytes += file_bytes;
    done_bytes += file_size;
  }
  encoder.finish();
  writer.flush();
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
  make_directories(io, directory);
  ShardWriter writer(io, directory, options.shard_tokens, record);
  encode_inputs(options, tokenizer, writer, record);
  for (const auto& file : tokenizer_files(tokenizer)) {
    write_file(io, directory + "/" + file.name, file.bytes);
  }
  write_file(io, directory + "/" + DatasetRecord::kFileName, dataset_record_to_json(record));
  fsync_directory(io, directory);
  return record;
}

void move_into_place(Io& io, const std::string& temporary, const std::string& out) {
  if (io.rename(temporary, out) != 0) {
    throw RunError(fmt::format("{}: cannot rename to {}", temporary, out));
  }
  const auto parent = fs::path(out).parent_path();
  fsync_directory(io, parent.empty() ? "." : parent.string());
}

// The failure that led here matters more than one of the removal, which is only logged.
void remove_after_failure(Io& io, const std::string& path) {
  try {
    remove_tree(io, path);
  } catch (const std::exception& error) {
    log_warning(fmt::format("tokenize: {}", error.what()));
  }
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
  fs::path out_path = fs::path(options.out).lexically_normal();
  if (!out_path.has_filename()) out_path = out_path.parent_path();
  const std::string out = out_path.string();
  const std::string temporary = out + ".tmp";
  const auto tokenizer = make_tokenizer(options.tokenizer, options.inputs);
  remove_tree(io, temporary);
  try {
    const DatasetRecord record = write_dataset(io, options, *tokenizer, temporary);
    move_into_place(io, temporary, out);
    return result_of(record);
  } catch (...) {
    remove_after_failure(io, temporary);
    remove_after_failure(io, out);
    throw;
  }
}

}  // namespace dsmoe
