#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "common/io.h"

namespace dsmoe {

/// What becomes of a file or directory that already has the name of an output.
enum class Existing {
  kRefuse,   ///< it stays, even if another process makes it while this one works
  kReplace,  ///< it stays until the new content is complete and durable, then it is replaced
};

/// An output that is a directory.
struct OutputDirectory {
  std::string path;
  Existing existing = Existing::kRefuse;
  /// A file that every output of this kind holds. kReplace replaces only a directory that holds it
  /// and nothing but plain files, so never a home or a run directory.
  std::string marker = {};
};

/// Every output of the program is made so: under a temporary name beside its target that no other
/// process has (`.NAME.tmp-PID-RANDOM`), fsynced, then renamed. A failure removes what this process
/// made and nothing else; messages name the target, not the temporary.

/// Writes a file. A pipe or device gets the bytes directly; a symbolic link keeps pointing to the
/// file that is replaced. Throws Error where check_output_file does, RunError for a failed write or
/// if another process made the file meanwhile.
void write_output_file(Io& io, const std::string& path, std::string_view bytes, Existing existing);

/// As above for content that `fill` writes to the empty file whose path it gets.
void write_output_file(Io& io,
                       const std::string& path,
                       Existing existing,
                       const std::function<void(const std::string& temporary)>& fill);

/// Makes a directory, and its parents where missing, whose files `fill` writes, fsynced, below the
/// path it gets. An empty directory of that name counts as none. Throws Error where
/// check_output_directory does, RunError for a failed write or if another process made the
/// directory meanwhile, and what `fill` throws.
void write_output_directory(Io& io,
                            const OutputDirectory& output,
                            const std::function<void(const std::string& temporary)>& fill);

/// Call before long work whose output goes to `path`. Throws Error if something is there that may
/// not be replaced or the directory above is missing, RunError if it cannot be written to.
void check_output_file(const std::string& path, Existing existing);
void check_output_directory(const OutputDirectory& output);

/// write_output_file with Existing::kReplace: a reader sees the old content or the new, never a
/// part.
void replace_file(Io& io, const std::string& path, std::string_view bytes);

/// True for the name of a temporary of the target `name`, made by any process.
bool is_temporary_of(std::string_view file_name, std::string_view name);

}  // namespace dsmoe
