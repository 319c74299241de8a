#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "common/io.h"
#include "model/io/export_model.h"
#include "model/io/tensor_link.h"

namespace dsmoe {

/// Writes `config.json`, `generation_config.json` and `model.safetensors` as the Python library
/// transformers reads them, into an empty directory (staged_output.h). config: without special
/// tokens, which come from the request, as the dtype does. Throws RunError.
void write_hf_directory(Io& io,
                        const std::string& directory,
                        const nlohmann::ordered_json& config,
                        const std::vector<TensorLink>& links,
                        const ExportRequest& request);

/// Fills every link from `model.safetensors`: none missing, none left over. Throws Error.
void read_hf_tensors(Io& io, const std::string& directory, const std::vector<TensorLink>& links);

/// One tensor of `model.safetensors`. Throws Error if there is none of that name.
at::Tensor read_hf_tensor(Io& io, const std::string& directory, const std::string& name);

/// `config.json` of a directory whose values are read one by one.
class HfConfig {
 public:
  /// Throws Error unless it is an object with that model_type.
  HfConfig(Io& io, const std::string& directory, const std::string& model_type);
  /// Throws Error if the key is missing or of another type.
  int64_t integer(const std::string& key) const;
  double real(const std::string& key) const;
  bool boolean(const std::string& key) const;
  std::string text(const std::string& key) const;
  /// From `rope_parameters` or, as older releases write it, `rope_theta`. Throws Error for scaled
  /// rotary positions.
  double rope_theta() const;
  /// Throws Error unless the key has that value.
  void expect(const std::string& key, const nlohmann::json& value) const;

 private:
  const nlohmann::json& value(const std::string& key) const;
  [[noreturn]] void fail(const std::string& key, const char* expected) const;
  std::string path_;
  nlohmann::json json_;
};

/// The names that transformers gives to number types.
std::string hf_dtype_name(at::ScalarType dtype);

}  // namespace dsmoe
