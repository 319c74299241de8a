#pragma once

#include <string>

namespace dsmoe {

/// Sends log lines to standard error, so that standard output holds results only.
void setup_log();

void log_info(const std::string& message);
void log_warning(const std::string& message);
void log_error(const std::string& message);

}  // namespace dsmoe
