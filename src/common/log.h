#pragma once

#include <string>
#include <string_view>

namespace dsmoe {

/// Sends log lines to standard error, so that standard output holds results only. A standard error
/// that has gone (a closed terminal or pipe) loses lines; it ends nothing. Each message is one
/// line: printable_line of it.
void setup_log();

/// Writes printable_text of `text` to standard error, without time and level.
void print_note(std::string_view text);

/// Writes `dsmoe: message` to standard error, as one line whatever the message holds.
void print_complaint(std::string_view message);

void log_info(const std::string& message);
void log_warning(const std::string& message);
void log_error(const std::string& message);

}  // namespace dsmoe
