#include "common/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>

#include "common/printable.h"

namespace dsmoe {

void setup_log() {
  auto logger = std::make_shared<spdlog::logger>(
      "dsmoe", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%H:%M:%S %^%l%$ %v");
  logger->flush_on(spdlog::level::info);
  // The default handler writes to standard error, which has just failed.
  logger->set_error_handler([](const std::string&) {});
  spdlog::set_default_logger(std::move(logger));
}

void print_note(std::string_view text) {
  const auto shown = printable_text(text);
  std::fwrite(shown.data(), 1, shown.size(), stderr);
  std::fflush(stderr);
}

void print_complaint(std::string_view message) {
  std::string line(message);
  std::replace(line.begin(), line.end(), '\n', ' ');
  print_note("dsmoe: " + printable_line(line) + "\n");
}

void log_info(const std::string& message) { spdlog::info("{}", printable_line(message)); }
void log_warning(const std::string& message) { spdlog::warn("{}", printable_line(message)); }
void log_error(const std::string& message) { spdlog::error("{}", printable_line(message)); }

}  // namespace dsmoe
