#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/io.h"
#include "formats/safetensors.h"

namespace dsmoe {

/// One file of a checkpoint.
struct FileRecord {
  std::string name;  // without a folder
  uint64_t size_bytes = 0;
  std::string hash;                    // XXH3-128, 32 hex digits
  std::vector<TensorEntry> tensors;    // of a safetensors file, else empty
  std::vector<std::string> checksums;  // one per tensor, see tensor_checksum
};

/// List of the files of a checkpoint directory; written last: a directory without it is no
/// checkpoint.
struct CheckpointManifest {
  static constexpr int64_t kFormatVersion = 1;
  int64_t format_version = kFormatVersion;
  std::string run_id;
  int64_t step = 0;
  int64_t world_size = 1;
  std::string config_hash;
  std::string dataset_hash;           // of the training tokens; empty where there were none
  std::string tokenizer_fingerprint;  // Tokenizer::fingerprint
  std::string code_version;
  std::string torch_version;
  std::vector<FileRecord> files;
};

/// Writes files, given by name and bytes, and lists them; `config_hash` becomes that of
/// config.json. Throws RunError.
void write_listed_files(Io& io,
                        const std::string& directory,
                        const std::vector<std::pair<std::string, std::string>>& files,
                        CheckpointManifest& manifest);

/// Writes the manifest, the last file of a checkpoint. Throws RunError.
void write_manifest(Io& io, const std::string& directory, const CheckpointManifest& manifest);

/// Hashes a file that is already written. Throws Error.
FileRecord describe_file(Io& io, const std::string& directory, const std::string& name);

/// Returns JSON that ends with the checksum of all bytes before it.
std::string manifest_to_json(const CheckpointManifest& manifest);

/// Throws Error if the text was altered, is of a newer format version (named), names a file with a
/// folder in it, or lacks a key. `source_name` is used in messages.
CheckpointManifest parse_manifest(const std::string& text, const std::string& source_name);

CheckpointManifest read_manifest(Io& io, const std::string& directory);

/// Reads every byte of a checkpoint directory and compares it with its manifest: missing, extra or
/// linked files, sizes, headers, tensors, hashes. Throws Error naming the file and, within a
/// safetensors file, the tensor that differs.
CheckpointManifest verify_checkpoint(Io& io, const std::string& directory);

}  // namespace dsmoe
