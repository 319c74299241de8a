#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "common/io.h"

namespace dsmoe {

/// Treatment of an existing file or directory with the name of an output.
enum class Existing {
  kRefuse,   ///< keep it, even if another process makes it during the work
  kReplace,  ///< keep it until the new content is complete and durable, then replace it
};

/// An output that is a directory.
struct OutputDirectory {
  std::string path;
  Existing existing = Existing::kRefuse;
  /// A file that every output of this kind holds. kReplace replaces only a directory that holds it
  /// and nothing but plain files, so never a home or a run directory.
  std::string marker = {};
};

/// Every output of the program is written to a temporary name beside its target, unique to the
/// process (`.NAME.tmp-PID-RANDOM`), fsynced, then renamed. A failure removes only the files of
/// this process; messages name the target, not the temporary.

/// Writes a file. A pipe or device receives the bytes directly; a symbolic link keeps pointing to
/// the replaced file. Throws Error as check_output_file does, RunError for a failed write or if
/// another process made the file meanwhile.
void write_output_file(Io& io, const std::string& path, std::string_view bytes, Existing existing);

/// As above; `fill` writes the content to the empty file at the path that it receives.
void write_output_file(Io& io,
                       const std::string& path,
                       Existing existing,
                       const std::function<void(const std::string& temporary)>& fill);

/// Makes a directory, and its parents where missing; `fill` writes the files, fsynced, below the
/// path that it receives. An empty directory of that name counts as absent. Throws Error as
/// check_output_directory does, RunError for a failed write or if another process made the
/// directory meanwhile, and the exceptions of `fill`.
void write_output_directory(Io& io,
                            const OutputDirectory& output,
                            const std::function<void(const std::string& temporary)>& fill);

/// Call before long work with output to `path`. Throws Error if an existing target may not be
/// replaced or the parent directory is missing, RunError if the target is not writable.
void check_output_file(const std::string& path, Existing existing);
void check_output_directory(const OutputDirectory& output);

/// write_output_file with Existing::kReplace: a reader sees the old content or the new, never a
/// part.
void replace_file(Io& io, const std::string& path, std::string_view bytes);

/// Returns whether a file name is a temporary of the target `name`, made by any process.
bool is_temporary_of(std::string_view file_name, std::string_view name);

}  // namespace dsmoe
