#include "cli/roofline_tables.h"

#include <fmt/format.h>

#include "cli/command_support.h"
#include "common/standard_output.h"
#include "report/gpu_roofline.h"

namespace dsmoe {
namespace {

nlohmann::ordered_json kernels_json(const Roofline& roofline) {
  auto kernels = nlohmann::ordered_json::array();
  for (const auto& kernel : roofline.kernels) {
    kernels.push_back({{"kernel", kernel.name},
                       {"launches", kernel.launches},
                       {"flops", kernel.flops},
                       {"bytes", kernel.bytes},
                       {"seconds", kernel.seconds}});
  }
  return kernels;
}

void print_kernels(const Roofline& roofline, double unit, const char* unit_name) {
  print_out("  {:<44} {:>8} {:>9} {:>9} {:>8} {:>8} {:>6}\n",
            "kernel",
            "launches",
            "GFLOP",
            "GB",
            "FLOP/B",
            unit_name,
            "share");
  for (const auto& kernel : roofline.kernels) {
    print_out("  {:<44} {:>8.0f} {:>9.2f} {:>9.3f} {:>8.0f} {:>8.2f} {:>5.1f}%\n",
              kernel.name,
              kernel.launches,
              kernel.flops / 1e9,
              kernel.bytes / 1e9,
              kernel.flops / kernel.bytes,
              kernel.seconds / unit,
              100 * kernel.seconds / roofline.seconds());
  }
}

}  // namespace

int print_roofline(const RunConfig& config,
                   const PlanRequest& request,
                   int64_t n_keys,
                   bool as_json) {
  const int64_t n_tokens = config.train.batch_size * config.seq_len();
  const auto step = training_roofline(config.model, request.gpu, n_tokens, config.seq_len());
  nlohmann::ordered_json json = {{"gpu", request.gpu.name},
                                 {"tokens", n_tokens},
                                 {"step_seconds", step.seconds()},
                                 {"step_kernels", kernels_json(step)}};
  auto decodes = nlohmann::ordered_json::array();
  if (!as_json) {
    print_out("{}: a step of {} tokens, expected {:.1f} ms, {:.1f} % of the peak\n",
              request.gpu.name,
              n_tokens,
              1e3 * step.seconds(),
              100 * step.flops() / step.seconds() / request.gpu.flops);
    print_kernels(step, 1e-3, "ms");
  }
  for (const auto& policy : request.policies) {
    const auto active = planned_experts(config.model, policy);
    const bool sparse = policy.to_string() != "all";
    for (const int64_t batch : {1, 8, 64}) {
      const auto decode = decode_roofline(config.model, request.gpu, batch, n_keys, active, sparse);
      decodes.push_back({{"policy", policy.to_string()},
                         {"batch", batch},
                         {"keys", n_keys},
                         {"seconds", decode.seconds()},
                         {"bytes", decode.bytes()},
                         {"kernels", kernels_json(decode)}});
      if (as_json) continue;
      print_out("decode, {}, {} sequences of {} keys: expected {:.1f} us, {:.3f} GB\n",
                policy.to_string(),
                batch,
                n_keys,
                1e6 * decode.seconds(),
                decode.bytes() / 1e9);
      if (batch == 1) print_kernels(decode, 1e-6, "us");
    }
  }
  json["decode"] = decodes;
  if (as_json) print_json(json);
  return 0;
}

}  // namespace dsmoe
