#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "common/io.h"
#include "common/printable.h"

namespace dsmoe {

/// Prints results. Every write is checked and nothing is buffered. After the first failure further
/// text is dropped, so that a command can finish its other outputs; finish() reports the failure.
/// For one thread at a time.
class StandardOutput {
 public:
  StandardOutput(Io& io, int fd) : io_(io), fd_(fd) {}

  /// Writes text as it is.
  void write(std::string_view text);

  /// Writes text that a model generated: as it is, byte for byte, to a file or a pipe;
  /// printable_text of it to a terminal.
  void write_generated(std::string_view text);

  /// Returns whether a write has failed: work that only prints its result may stop.
  bool is_lost() const { return !failure_.empty(); }

  /// Closes the descriptor if anything was written, since some file systems report a full disk only
  /// then. Returns the failure, such as `standard output: cannot write: No space left on device`;
  /// empty if there was none.
  std::string finish();

 private:
  void fail(const char* what);
  bool wait_until_writable();

  Io& io_;
  int fd_;
  bool has_written_ = false;
  std::string failure_;
};

/// Returns the output of this process, descriptor 1.
StandardOutput& standard_output();

/// Prints with fmt::print to standard_output() as printable_text: no text from a file or an
/// argument controls a terminal. scripts/check_layers.sh finds prints that bypass it.
template <typename... Arguments>
void print_out(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  standard_output().write(
      printable_text(fmt::format(format, std::forward<Arguments>(arguments)...)));
}

/// Call first in main: opens a descriptor that fails on use in place of each closed standard
/// descriptor, so that no file of the program takes its number and receives printed text.
void reserve_standard_descriptors();

}  // namespace dsmoe
