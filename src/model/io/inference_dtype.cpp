#include "model/io/inference_dtype.h"

#include "formats/json_limits.h"

namespace dsmoe {
namespace {

constexpr uint64_t kMaxTrainedConfigBytes = 1 << 20;

}  // namespace

std::string read_trained_dtype(Io& io, const std::string& directory) {
  const auto path = directory + "/config.json";
  const auto json =
      parse_json(read_file(io, path, kMaxTrainedConfigBytes), path, kMaxTrainedConfigBytes);
  if (!json.is_object() || !json.contains("train") || !json["train"].is_object()) return "";
  const auto dtype = json["train"].find("compute_dtype");
  return dtype != json["train"].end() && dtype->is_string() ? dtype->get<std::string>() : "";
}

DefaultDtype default_dtype(const std::string& trained, bool fast_bfloat16) {
  if (trained != "bfloat16") {
    return {PackedFormat::kFloat32, trained == "float32" ? "as in training" : "the default"};
  }
  if (fast_bfloat16) return {PackedFormat::kBfloat16, "as in training"};
  return {PackedFormat::kFloat32,
          "trained in bfloat16, which is slow on a CPU without AVX512-BF16"};
}

}  // namespace dsmoe
