#pragma once

#include <string>

namespace dsmoe {

/// Sends log lines to standard error, so that standard output holds results only. A standard error
/// that has gone (a closed terminal or pipe) loses lines; it ends nothing.
void setup_log();

/// Writes `text` to standard error as it is, without time and level.
void print_note(const std::string& text);

void log_info(const std::string& message);
void log_warning(const std::string& message);
void log_error(const std::string& message);

}  // namespace dsmoe
