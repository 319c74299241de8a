#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/io.h"
#include "formats/checkpoint_manifest.h"
#include "model/io/model_source.h"

namespace dsmoe {

/// What a converted checkpoint holds beside the weights.
struct ConvertedContents {
  CheckpointManifest manifest;  ///< fingerprint and versions; files are filled in
  std::vector<std::pair<std::string, std::string>> files;  ///< name and bytes: the tokenizer's
};

/// Refuses a path that has something in it. Throws Error.
void check_new_directory(const std::string& directory);

/// Writes a checkpoint directory that every command reads: one tensor in memory at a time, first
/// under a temporary name beside it, then renamed, read back and verified, so that it is complete
/// or not there. Throws Error if the directory exists, RunError for a failed write or a weight that
/// is not finite.
void write_converted(Io& io,
                     const std::string& directory,
                     const ModelSource& source,
                     const ConvertedContents& contents);

/// Writes the tensors of a source, one in memory at a time, as `dtype`.
FileRecord write_source(Io& io,
                        const std::string& directory,
                        const std::string& file_name,
                        const std::vector<LazyTensor>& tensors,
                        at::ScalarType dtype);

}  // namespace dsmoe
