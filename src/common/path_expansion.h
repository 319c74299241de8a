#pragma once

#include <string>

namespace dsmoe {

/// Returns a path of a config as a shell would read it: a leading `~` or `~/` becomes HOME, `$NAME`
/// and `${NAME}` become the variable's value, `$$` becomes `$`. Any other `$` stays.
///
/// who  key of the path, for messages
/// Throws Error for a variable that is empty or not set, for `~user` and for `${` without a name
/// and `}`.
std::string expand_path(const std::string& path, const std::string& who);

/// Returns the text that expand_path reads as `path`: for configs that the program writes.
std::string quote_path(const std::string& path);

/// Returns a path of the command line with a leading `~` or `~/` replaced by HOME: shells do not
/// expand it in `--out=~/x`. A `$` stays, and so does a `~` in a name without `/` (such as
/// `~lock.txt`).
///
/// who  option of the path, for messages
/// Throws Error for `~user/`, and where HOME is needed and not set.
std::string expand_home(const std::string& path, const std::string& who);

}  // namespace dsmoe
