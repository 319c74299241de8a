#include "common/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "common/printable.h"

namespace dsmoe {
namespace {

// `warning: ` or `error: ` in front of a message; nothing in front of an ordinary one.
class LevelFlag : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message,
              const std::tm&,
              spdlog::memory_buf_t& out) override {
    if (message.level <= spdlog::level::info) return;
    const auto name = spdlog::level::to_string_view(message.level);
    out.append(name.data(), name.data() + name.size());
    const std::string_view end = ": ";
    out.append(end.data(), end.data() + end.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<LevelFlag>();
  }
};

}  // namespace

void setup_log() {
  auto sink =
      std::make_shared<spdlog::sinks::stderr_color_sink_mt>();  // colours on a terminal only
  const char* no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != '\0') sink->set_color_mode(spdlog::color_mode::never);
  auto logger = std::make_shared<spdlog::logger>("dsmoe", std::move(sink));
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<LevelFlag>('*').set_pattern("%H:%M:%S %^%*%$%v");
  logger->set_formatter(std::move(formatter));
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
