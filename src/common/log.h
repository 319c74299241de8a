#pragma once

#include <string>
#include <string_view>

namespace dsmoe {

/// Sends log lines to standard error, so that standard output holds results only. Each message is
/// one line (printable_line). If standard error is closed (terminal or pipe), lines are lost and
/// the program continues.
void setup_log();

/// Writes printable_text of `text` to standard error, without time and level.
void print_note(std::string_view text);

/// Writes `dsmoe: message` to standard error, always as one line.
void print_complaint(std::string_view message);

void log_info(const std::string& message);
void log_warning(const std::string& message);
void log_error(const std::string& message);

}  // namespace dsmoe
