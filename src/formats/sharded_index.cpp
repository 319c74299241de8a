#include "formats/sharded_index.h"

#include <fmt/format.h>

#include "common/error.h"
#include "formats/json_limits.h"

namespace dsmoe {
namespace {

// About 2,300 tensors.
const JsonLimits kIndexLimits{.max_size_bytes = 1 << 20};

bool is_plain_name(const std::string& name) {
  return name.ends_with(".safetensors") && name.front() != '.' &&
         name.find('/') == std::string::npos && name.find('\\') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

}  // namespace

std::map<std::string, std::string> parse_sharded_index(const std::string& text,
                                                       const std::string& source_name) {
  const auto json = parse_json(text, source_name, kIndexLimits);
  const auto weights = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || weights == json.end() || !weights->is_object() || weights->empty()) {
    throw Error(fmt::format("{}: expected an object 'weight_map' with tensors", source_name));
  }
  std::map<std::string, std::string> file_of_tensor;
  for (const auto& [tensor, file] : weights->items()) {
    if (!file.is_string() || !is_plain_name(file.get<std::string>())) {
      throw Error(fmt::format(
          "{}: '{}': expected the plain name of a .safetensors file", source_name, tensor));
    }
    file_of_tensor[tensor] = file.get<std::string>();
  }
  return file_of_tensor;
}

}  // namespace dsmoe
