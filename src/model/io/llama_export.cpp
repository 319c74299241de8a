#include "model/io/llama_export.h"

#include <fmt/format.h>

#include "common/error.h"
#include "model/io/hf_directory.h"
#include "model/io/llama_config.h"
#include "model/io/model_source.h"
#include "model/io/tensor_link.h"
#include "model/named_tensors.h"

namespace dsmoe {

std::vector<std::string> llama_export_obstacles(const ModelConfig& config, const RoutingPlan&) {
  return llama_obstacles(config);
}

int64_t write_llama(Io& io,
                    const Transformer& model,
                    const ExportRequest& request,
                    const std::string& out) {
  const auto& config = model->config();
  const Parameters parameters(model);
  std::vector<TensorLink> links;
  for (const auto& tensor : llama_tensors(config)) {
    links.push_back({tensor.hf_name, {parameters.at(tensor.name)}});
  }
  size_t n_routers = 0;
  for (const auto& [name, tensor] : named_parameters(*model)) {
    n_routers += name.find(".router.") != std::string::npos;
  }
  if (links.size() + n_routers != named_parameters(*model).size()) {
    throw Error(
        "export: hf-llama: expected every parameter except the routers to have a tensor in the "
        "target");
  }
  write_hf_directory(
      io, out, llama_config_to_json(config, hf_dtype_name(request.dtype)), links, request);
  return static_cast<int64_t>(links.size());
}

Transformer read_llama(Io& io, const std::string& out) {
  return instantiate(open_hf_llama(io, out));
}

}  // namespace dsmoe
