#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <string>

#include "model/transformer.h"

namespace dsmoe {
namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool is_output_projection(const std::string& name) {
  return ends_with(name, ".o_proj.weight") || ends_with(name, ".down_proj.weight");
}

}  // namespace

void init_weights(Transformer& model, uint64_t seed, double std) {
  const at::NoGradGuard no_grad;
  auto generator = at::detail::createCPUGenerator(seed);
  const double output_std = std / std::sqrt(2.0 * static_cast<double>(model->config().n_layers));
  for (auto& item : model->named_parameters()) {
    auto& parameter = item.value();
    if (item.key().find("norm") != std::string::npos) {
      parameter.fill_(ends_with(item.key(), "weight") ? 1.0 : 0.0);
    } else if (parameter.dim() == 1) {
      parameter.zero_();
    } else {
      parameter.normal_(0.0, is_output_projection(item.key()) ? output_std : std, generator);
    }
  }
}

}  // namespace dsmoe
