#include "common/json_lines.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "common/staged_output.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 34;

bool is_kept(const std::string& line, int64_t step) {
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  return json.is_object() && json.contains("step") && json["step"].is_number_integer() &&
         json["step"].get<int64_t>() <= step;
}

}  // namespace

JsonLines::JsonLines(Io& io, const std::string& path)
    : io_(io),
      path_(path),
      fd_(io.open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, kFileMode)) {
  if (fd_ < 0) throw RunError(fmt::format("{}: cannot be opened: {}", path, strerror(errno)));
}

JsonLines::~JsonLines() { io_.close(fd_); }

void JsonLines::add(const nlohmann::ordered_json& object) {
  const auto line =
      object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  write_all(io_, fd_, line.data(), line.size(), path_);
}

void keep_lines_up_to_step(Io& io, const std::string& path, int64_t step) {
  if (access(path.c_str(), F_OK) != 0) return;
  const auto text = read_file(io, path, kMaxBytes);
  std::string kept;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    const auto line = text.substr(begin, end - begin);
    if (is_kept(line, step)) kept += line + "\n";
    begin = end + 1;
  }
  if (kept != text) replace_file(io, path, kept);
}

}  // namespace dsmoe
