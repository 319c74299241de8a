#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/io.h"

namespace dsmoe {

/// One shard as `dataset.json` names it.
struct ShardRecord {
  std::string name;
  int64_t n_tokens = 0;
  int64_t n_documents = 0;  // documents that begin in it
  std::string hash;         // of the payload, 16 hex digits
};

/// Content of `dataset.json`, the record of a directory of token shards.
struct DatasetRecord {
  static constexpr const char* kFileName = "dataset.json";
  static constexpr int64_t kFormatVersion = 2;
  int64_t n_tokens = 0;
  int64_t n_documents = 0;
  int64_t n_bytes = 0;
  int64_t vocab_size = 0;
  std::string tokenizer;  // fingerprint
  std::vector<ShardRecord> shards;
};

/// `shard-00000.bin` and so on.
std::string shard_name(size_t index);

/// Returns XXH3-128 over the tokenizer's fingerprint and the shards' hashes in order, 32 hex
/// digits.
std::string dataset_hash(const DatasetRecord& record);

std::string dataset_record_to_json(const DatasetRecord& record);

/// Throws Error naming the file: a key missing or out of range, another format version, shard names
/// that differ from shard_name, a sum or hash that does not match.
DatasetRecord read_dataset_record(Io& io, const std::string& directory);

}  // namespace dsmoe
