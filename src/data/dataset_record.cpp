#include "data/dataset_record.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "formats/hash.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxRecordBytes = 64 << 20;

const nlohmann::json& value_at(const nlohmann::json& object,
                               const char* key,
                               const std::string& path) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  if (found == object.end()) throw Error(fmt::format("{}: expected a key '{}'", path, key));
  return *found;
}

int64_t count_at(const nlohmann::json& object,
                 const char* key,
                 const std::string& path,
                 uint64_t min = 1) {
  const auto& value = value_at(object, key, path);
  constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (!value.is_number_unsigned() || value.get<uint64_t>() < min || value.get<uint64_t>() > kMax) {
    throw Error(fmt::format(
        "{}: expected {} to be a count of at least {}, got {}", path, key, min, value.dump()));
  }
  return value.get<int64_t>();
}

std::string text_at(const nlohmann::json& object, const char* key, const std::string& path) {
  const auto& value = value_at(object, key, path);
  if (!value.is_string()) {
    throw Error(fmt::format("{}: expected {} to be a text, got {}", path, key, value.dump()));
  }
  return value.get<std::string>();
}

DatasetRecord parse_record(const nlohmann::json& json, const std::string& path) {
  const int64_t version = count_at(json, "format_version", path);
  if (version != DatasetRecord::kFormatVersion) {
    throw Error(fmt::format("{}: expected format_version {}, got {}; run 'dsmoe tokenize' again",
                            path,
                            DatasetRecord::kFormatVersion,
                            version));
  }
  DatasetRecord record;
  record.n_tokens = count_at(json, "n_tokens", path);
  record.n_documents = count_at(json, "n_documents", path);
  record.n_bytes = count_at(json, "n_bytes", path);
  record.vocab_size = count_at(json, "vocab_size", path);
  record.tokenizer = text_at(json, "tokenizer", path);
  const auto& shards = value_at(json, "shards", path);
  if (!shards.is_array()) throw Error(fmt::format("{}: expected shards to be a list", path));
  for (const auto& shard : shards) {
    record.shards.push_back({text_at(shard, "name", path),
                             count_at(shard, "n_tokens", path),
                             count_at(shard, "n_documents", path, 0),
                             text_at(shard, "hash", path)});
  }
  return record;
}

// Fixed names keep every read inside the directory.
void check_shards(const DatasetRecord& record, const std::string& path) {
  int64_t left = record.n_tokens;
  int64_t documents_left = record.n_documents;
  for (size_t i = 0; i < record.shards.size(); ++i) {
    const ShardRecord& shard = record.shards[i];
    if (shard.name != shard_name(i)) {
      throw Error(fmt::format("{}: expected shard {}, got '{}'", path, shard_name(i), shard.name));
    }
    if (shard.n_tokens > left || shard.n_documents > documents_left) break;
    left -= shard.n_tokens;
    documents_left -= shard.n_documents;
  }
  if (left != 0 || documents_left != 0) {
    throw Error(
        fmt::format("{}: expected n_tokens {} and n_documents {} to be the sums over its shards",
                    path,
                    record.n_tokens,
                    record.n_documents));
  }
}

}  // namespace

std::string shard_name(size_t index) { return fmt::format("shard-{:05}.bin", index); }

std::string dataset_hash(const DatasetRecord& record) {
  // Parts hold no line feed, so they cannot run into each other.
  std::string parts = record.tokenizer + "\n";
  for (const ShardRecord& shard : record.shards) parts += shard.hash + "\n";
  return hash128(parts);
}

std::string dataset_record_to_json(const DatasetRecord& record) {
  nlohmann::ordered_json json;
  json["format_version"] = DatasetRecord::kFormatVersion;
  json["n_tokens"] = record.n_tokens;
  json["n_documents"] = record.n_documents;
  json["n_bytes"] = record.n_bytes;
  json["vocab_size"] = record.vocab_size;
  json["tokenizer"] = record.tokenizer;
  json["hash"] = dataset_hash(record);
  json["shards"] = nlohmann::ordered_json::array();
  for (const ShardRecord& shard : record.shards) {
    json["shards"].push_back({{"name", shard.name},
                              {"n_tokens", shard.n_tokens},
                              {"n_documents", shard.n_documents},
                              {"hash", shard.hash}});
  }
  return json.dump(2) + "\n";
}

DatasetRecord read_dataset_record(Io& io, const std::string& directory) {
  const std::string path = directory + "/" + DatasetRecord::kFileName;
  const auto json = parse_json(read_file(io, path, kMaxRecordBytes), path, kMaxRecordBytes);
  DatasetRecord record = parse_record(json, path);
  check_shards(record, path);
  const std::string hash = text_at(json, "hash", path);
  if (hash != dataset_hash(record)) {
    throw Error(
        fmt::format("{}: expected hash {}, got {}; the file was altered or its shards exchanged",
                    path,
                    dataset_hash(record),
                    hash));
  }
  return record;
}

}  // namespace dsmoe
