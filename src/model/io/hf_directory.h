#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "common/io.h"
#include "model/io/export_model.h"
#include "model/io/tensor_link.h"

namespace dsmoe {

/// Writes `config.json`, `generation_config.json` and `model.safetensors` for the Python library
/// transformers into an empty directory (staged_output.h). config has no special tokens: they and
/// the dtype are taken from the request. Throws RunError.
void write_hf_directory(Io& io,
                        const std::string& directory,
                        const nlohmann::ordered_json& config,
                        const std::vector<TensorLink>& links,
                        const ExportRequest& request);

/// Fills every link from `model.safetensors`. Throws Error for a missing or unused tensor.
void read_hf_tensors(Io& io, const std::string& directory, const std::vector<TensorLink>& links);

/// Reads one tensor of `model.safetensors`. Throws Error if it is missing.
at::Tensor read_hf_tensor(Io& io, const std::string& directory, const std::string& name);

/// Reads values of the `config.json` of a directory.
class HfConfig {
 public:
  /// Throws Error unless it is an object with that model_type.
  HfConfig(Io& io, const std::string& directory, const std::string& model_type);
  /// Throws Error if the key is missing or of another type.
  int64_t integer(const std::string& key) const;
  double real(const std::string& key) const;
  bool boolean(const std::string& key) const;
  std::string text(const std::string& key) const;
  /// Reads `rope_parameters` or, from files of older releases, `rope_theta`. Throws Error for
  /// scaled rotary positions.
  double rope_theta() const;
  /// Throws Error unless the key has that value.
  void expect(const std::string& key, const nlohmann::json& value) const;

 private:
  const nlohmann::json& value(const std::string& key) const;
  [[noreturn]] void fail(const std::string& key, const char* expected) const;
  std::string path_;
  nlohmann::json json_;
};

/// Name of a number type in transformers.
std::string hf_dtype_name(at::ScalarType dtype);

}  // namespace dsmoe
