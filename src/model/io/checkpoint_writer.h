#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/staged_output.h"
#include "formats/checkpoint_manifest.h"
#include "model/io/model_source.h"

namespace dsmoe {

/// What a converted checkpoint holds beside the weights.
struct ConvertedContents {
  CheckpointManifest manifest;  ///< fingerprint and versions; files are filled in
  std::vector<std::pair<std::string, std::string>> files;  ///< name and bytes: the tokenizer's
};

/// Where a checkpoint of a conversion goes; kReplace replaces an earlier checkpoint only.
OutputDirectory converted_output(const std::string& directory, Existing existing);

/// Writes a checkpoint directory that every command reads, one tensor in memory at a time; it is
/// verified before it gets its name, so that it is complete or not there. Throws Error if the
/// directory exists and may not be replaced, RunError for a failed write or a weight that is not
/// finite.
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
