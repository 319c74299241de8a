#include "cli/prompt_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/error.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 30;
constexpr size_t kMaxLineBytes = 1 << 26;

void take(const nlohmann::json& value, double& to) {
  if (!value.is_number()) throw Error("a number");
  to = value.get<double>();
}

void take(const nlohmann::json& value, int64_t& to) {
  if (!value.is_number_integer()) throw Error("a whole number");
  to = value.get<int64_t>();
}

void take(const nlohmann::json& value, uint64_t& to) {
  if (!value.is_number_unsigned()) throw Error("a whole number from 0 on");
  to = value.get<uint64_t>();
}

void take(const nlohmann::json& value, std::string& to) {
  if (!value.is_string()) throw Error("a text");
  to = value.get<std::string>();
}

void take(const nlohmann::json& value, std::vector<std::string>& to) {
  if (!value.is_array()) throw Error("an array of texts");
  to.assign(value.size(), "");
  for (size_t i = 0; i < value.size(); ++i) take(value[i], to[i]);
}

// False for a key that a request does not have.
bool take_key(const std::string& key, const nlohmann::json& value, TextRequest& request) {
  auto& options = request.options;
  auto& sampling = options.sampling;
  if (key == "prompt") return take(value, request.prompt), true;
  if (key == "max_tokens") return take(value, options.max_tokens), true;
  if (key == "stop") return take(value, options.stop), true;
  if (key == "temperature") return take(value, sampling.temperature), true;
  if (key == "top_k") return take(value, sampling.top_k), true;
  if (key == "top_p") return take(value, sampling.top_p), true;
  if (key == "min_p") return take(value, sampling.min_p), true;
  if (key == "repetition_penalty") return take(value, sampling.repetition_penalty), true;
  if (key == "seed") return take(value, sampling.seed), true;
  return false;
}

TextRequest parse_line(const std::string& line,
                       const std::string& where,
                       const GenerateRequest& defaults) {
  TextRequest request{"", defaults};
  const auto json = parse_json(line, where, kMaxLineBytes);
  if (!json.is_object() || !json.contains("prompt")) {
    throw Error(fmt::format("{}: expected an object with 'prompt'", where));
  }
  for (const auto& [key, value] : json.items()) {
    try {
      if (take_key(key, value, request)) continue;
    } catch (const Error& error) {
      throw Error(fmt::format("{}: '{}': expected {}", where, key, error.what()));
    }
    throw Error(fmt::format("{}: '{}' is no option of a prompt", where, key));
  }
  return request;
}

}  // namespace

std::vector<TextRequest> read_prompts(Io& io,
                                      const std::string& path,
                                      const GenerateRequest& defaults) {
  const auto text = read_file(io, path, kMaxFileBytes);
  const bool is_json = path.ends_with(".jsonl");
  std::vector<TextRequest> requests;
  size_t n_lines = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const auto line = text.substr(begin, end - begin);
    begin = end + 1;
    ++n_lines;
    if (!is_json) {
      requests.push_back({line, defaults});
    } else if (!line.empty()) {
      requests.push_back(parse_line(line, fmt::format("{}:{}", path, n_lines), defaults));
    }
  }
  if (requests.empty()) throw Error(fmt::format("{}: expected prompts, got none", path));
  return requests;
}

}  // namespace dsmoe
