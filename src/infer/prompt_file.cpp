#include "infer/prompt_file.h"

#include <fmt/format.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "data/text_lines.h"

namespace dsmoe {
namespace {

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

TextRequest parse_line(const TextLine& line,
                       const GenerateRequest& defaults,
                       const std::string& field) {
  TextRequest request{.options = defaults};
  const auto json = parse_json_line(line);
  if (!json.contains(field)) {
    throw Error(fmt::format("{}: expected an object with '{}'", line.place, field));
  }
  for (const auto& [key, value] : json.items()) {
    try {
      if (key == field) {
        take(value, request.prompt);
      } else if (!take_key(key, value, request)) {
        throw Error("one of the options of a prompt");
      }
    } catch (const Error& error) {
      throw Error(fmt::format("{}: '{}': expected {}", line.place, key, error.what()));
    }
  }
  return request;
}

}  // namespace

std::vector<int32_t> encode_prompt(const std::string& text, const Tokenizer& tokenizer) {
  auto ids = tokenizer.encode_with_bos(text);
  // There must be something to continue, also where BOS goes before no text.
  if (const auto bos = tokenizer.bos_id(); ids.empty() && bos) ids.push_back(*bos);
  if (ids.empty()) {
    throw Error("--prompt: expected a text, got none; this tokenizer has no BOS to start from");
  }
  return ids;
}

std::vector<TextRequest> read_prompts(Io& io,
                                      const std::string& path,
                                      const GenerateRequest& defaults,
                                      const std::string& field) {
  TextFile file(io, path);
  std::vector<TextRequest> requests;
  const auto add = [&](const TextLine& line, const std::function<TextRequest()>& read) {
    auto& request = requests.emplace_back();
    try {
      check_utf8(line);
      request = read();
    } catch (const Error& error) {
      request.error = error.what();
    }
    request.place = line.place;
  };
  if (holds_json_lines(file, field)) {
    const auto key = field.empty() ? "prompt" : field;
    read_json_lines(file, [&](const TextLine& line) {
      add(line, [&] { return parse_line(line, defaults, key); });
    });
  } else {
    warn_of_json_as_text(io, path, field);
    read_lines(file, [&](const TextLine& line) {
      add(line, [&] { return TextRequest{std::string(line.text), defaults}; });
    });
  }
  if (requests.empty()) throw Error(fmt::format("{}: expected prompts, got none", path));
  return requests;
}

}  // namespace dsmoe
