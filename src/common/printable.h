#pragma once

#include <string>
#include <string_view>

namespace dsmoe {

/// Returns a text from outside as one line that cannot control a terminal. Valid UTF-8 stays,
/// except for control characters (C0, DEL, C1), line and paragraph separators and marks of writing
/// direction, which become `\n`, `\r`, `\t` or `\u001b`; bytes that are not UTF-8 become `\xff`. A
/// second call changes nothing.
std::string printable_line(std::string_view text);

/// The same for a text of several lines: line feeds and tabs stay. A JSON or double-quoted YAML
/// value that is valid UTF-8 keeps its meaning, as both read `\u001b`.
std::string printable_text(std::string_view text);

}  // namespace dsmoe
