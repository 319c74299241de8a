#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/staged_output.h"
#include "formats/checkpoint_manifest.h"
#include "model/io/model_source.h"

namespace dsmoe {

/// Contents of a converted checkpoint besides the weights.
struct ConvertedContents {
  CheckpointManifest manifest;  ///< fingerprint and versions; files are filled in
  std::vector<std::pair<std::string, std::string>> files;  ///< name and bytes, tokenizer
};

/// Output directory of a conversion; kReplace replaces only an earlier checkpoint.
OutputDirectory converted_output(const std::string& directory, Existing existing);

/// Writes a checkpoint directory that every command reads, with one tensor in memory at a time. The
/// directory gets its name after verification, so that it is complete or absent. Throws Error if
/// the directory exists and may not be replaced, RunError for a failed write or a weight that is
/// not finite.
void write_converted(Io& io,
                     const OutputDirectory& output,
                     const ModelSource& source,
                     const ConvertedContents& contents);

/// Writes the tensors of a source, one in memory at a time, as `dtype`.
FileRecord write_source(Io& io,
                        const std::string& directory,
                        const std::string& file_name,
                        const std::vector<LazyTensor>& tensors,
                        at::ScalarType dtype);

}  // namespace dsmoe
