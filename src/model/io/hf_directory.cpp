#include "model/io/hf_directory.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include "common/error.h"
#include "formats/json_limits.h"
#include "formats/safetensors.h"
#include "model/named_tensors.h"

namespace dsmoe {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;
constexpr const char* kTensorFile = "/model.safetensors";

at::Tensor read_tensor(const SafetensorsFile& file,
                       const std::string& path,
                       const std::string& name) {
  const auto* entry = file.find(name);
  if (entry == nullptr) throw Error(fmt::format("{}: expected '{}'", path, name));
  auto value = at::empty(entry->shape, dtype_from_name(entry->dtype));
  file.read(*entry, value.data_ptr());
  return value;
}

}  // namespace

void write_hf_directory(Io& io,
                        const std::string& directory,
                        const nlohmann::ordered_json& config,
                        const std::vector<TensorLink>& links,
                        const ExportRequest& request) {
  auto model = config;
  set_special_ids(model, request.special_tokens);
  nlohmann::ordered_json generation;
  set_special_ids(generation, request.special_tokens);
  std::vector<at::Tensor> keep_alive;
  std::vector<TensorBytes> tensors;
  for (const auto& link : links) {
    const auto& tensor = keep_alive.emplace_back(gather(link, request.dtype));
    tensors.push_back({link.name,
                       dtype_name(tensor.scalar_type()),
                       tensor.sizes().vec(),
                       tensor.const_data_ptr()});
  }
  write_safetensors(io, directory + kTensorFile, {{"format", "pt"}}, tensors);
  write_file(io, directory + "/config.json", model.dump(2) + "\n");
  write_file(io, directory + "/generation_config.json", generation.dump(2) + "\n");
}

void read_hf_tensors(Io& io, const std::string& directory, const std::vector<TensorLink>& links) {
  const auto path = directory + kTensorFile;
  const SafetensorsFile file(io, path);
  std::vector<std::string> names;
  for (const auto& entry : file.tensors()) names.push_back(entry.name);
  check_names(links, names, path);
  for (const auto& link : links) scatter(link, read_tensor(file, path, link.name));
}

at::Tensor read_hf_tensor(Io& io, const std::string& directory, const std::string& name) {
  const auto path = directory + kTensorFile;
  return read_tensor(SafetensorsFile(io, path), path, name);
}

HfConfig::HfConfig(Io& io, const std::string& directory, const std::string& model_type)
    : path_(directory + "/config.json"),
      json_(parse_json(read_file(io, path_, kMaxConfigBytes), path_, kMaxConfigBytes)) {
  if (!json_.is_object() || text("model_type") != model_type) {
    throw Error(fmt::format("{}: expected model_type '{}'", path_, model_type));
  }
}

void HfConfig::fail(const std::string& key, const char* expected) const {
  throw Error(fmt::format("{}: '{}': expected {}", path_, key, expected));
}

const nlohmann::json& HfConfig::value(const std::string& key) const {
  const auto found = json_.find(key);
  if (found == json_.end()) fail(key, "a value, got none");
  return *found;
}

int64_t HfConfig::integer(const std::string& key) const {
  if (!value(key).is_number_integer()) fail(key, "a whole number");
  return value(key).get<int64_t>();
}

double HfConfig::real(const std::string& key) const {
  if (!value(key).is_number()) fail(key, "a number");
  return value(key).get<double>();
}

bool HfConfig::boolean(const std::string& key) const {
  if (!value(key).is_boolean()) fail(key, "true or false");
  return value(key).get<bool>();
}

std::string HfConfig::text(const std::string& key) const {
  if (!value(key).is_string()) fail(key, "a text");
  return value(key).get<std::string>();
}

double HfConfig::rope_theta() const {
  const auto found = json_.find("rope_parameters");
  if (found == json_.end() || found->is_null()) return real("rope_theta");
  if (!found->is_object() || found->value("rope_type", "") != "default" ||
      !found->contains("rope_theta") || !found->at("rope_theta").is_number()) {
    fail("rope_parameters", "rope_type default and a number as rope_theta");
  }
  return found->at("rope_theta").get<double>();
}

void HfConfig::expect(const std::string& key, const nlohmann::json& expected) const {
  if (value(key) != expected) fail(key, expected.dump().c_str());
}

std::string hf_dtype_name(at::ScalarType dtype) {
  return dtype == at::kFloat ? "float32" : dtype == at::kBFloat16 ? "bfloat16" : "float16";
}

}  // namespace dsmoe
