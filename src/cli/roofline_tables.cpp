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

struct Decode {
  std::string policy;
  int64_t batch = 0;
  Roofline roofline;
};

struct Report {
  std::string gpu;
  double peak_flops = 0;  // per second
  int64_t n_tokens = 0;   // of a step
  int64_t n_keys = 0;     // of each sequence that decodes
  Roofline step;
  std::vector<Decode> decodes;
};

Report make_report(const RunConfig& config, const PlanRequest& request, int64_t n_keys) {
  const int64_t n_tokens = config.train.batch_size * config.seq_len();
  Report report{.gpu = request.gpu.name,
                .peak_flops = request.gpu.flops,
                .n_tokens = n_tokens,
                .n_keys = n_keys,
                .step = training_roofline(config.model, request.gpu, n_tokens, config.seq_len()),
                .decodes = {}};
  for (const auto& policy : request.policies) {
    const auto active = planned_experts(config.model, policy);
    const bool sparse = policy.to_string() != "all";
    for (const int64_t batch : {1, 8, 64}) {
      report.decodes.push_back(
          {policy.to_string(),
           batch,
           decode_roofline(config.model, request.gpu, batch, n_keys, active, sparse)});
    }
  }
  return report;
}

nlohmann::ordered_json to_json(const Report& report) {
  auto decodes = nlohmann::ordered_json::array();
  for (const auto& [policy, batch, decode] : report.decodes) {
    decodes.push_back({{"policy", policy},
                       {"batch", batch},
                       {"keys", report.n_keys},
                       {"seconds", decode.seconds()},
                       {"bytes", decode.bytes()},
                       {"kernels", kernels_json(decode)}});
  }
  return {{"gpu", report.gpu},
          {"tokens", report.n_tokens},
          {"step_seconds", report.step.seconds()},
          {"step_kernels", kernels_json(report.step)},
          {"decode", decodes}};
}

void print_text(const Report& report) {
  const auto& step = report.step;
  print_out("{}: a step of {} tokens, expected {:.1f} ms, {:.1f} % of the peak\n",
            report.gpu,
            report.n_tokens,
            1e3 * step.seconds(),
            100 * step.flops() / step.seconds() / report.peak_flops);
  print_kernels(step, 1e-3, "ms");
  for (const auto& [policy, batch, decode] : report.decodes) {
    print_out("decode, {}, {} sequences of {} keys: expected {:.1f} us, {:.3f} GB\n",
              policy,
              batch,
              report.n_keys,
              1e6 * decode.seconds(),
              decode.bytes() / 1e9);
    if (batch == 1) print_kernels(decode, 1e-6, "us");
  }
}

}  // namespace

int print_roofline(const RunConfig& config,
                   const PlanRequest& request,
                   int64_t n_keys,
                   bool as_json) {
  const auto report = make_report(config, request, n_keys);
  if (as_json) {
    print_json(to_json(report));
  } else {
    print_text(report);
  }
  return 0;
}

}  // namespace dsmoe
