#include "model/io/export_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randint.h>
#include <fmt/format.h>

#include <algorithm>

#include "common/error.h"
#include "model/io/gguf_export.h"
#include "model/io/jetmoe_export.h"
#include "model/io/llama_export.h"
#include "model/io/olmoe_export.h"
#include "model/named_tensors.h"

namespace dsmoe {
namespace {

constexpr int64_t kCheckSequences = 2;
constexpr int64_t kCheckTokens = 16;
constexpr double kTolerance = 1e-4;  // of the largest logit

const ExportTarget& find_target(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& target : export_targets()) {
    if (target.name == name) return target;
    names.push_back(target.name);
  }
  throw Error(fmt::format("--to: expected one of {}, got '{}'", fmt::join(names, ", "), name));
}

void check_expressible(const ExportTarget& target,
                       const ModelConfig& config,
                       const RoutingPlan& plan) {
  const auto obstacles = target.obstacles(config, plan);
  if (obstacles.empty()) return;
  throw Error(fmt::format(
      "export: {} cannot express this model: {}", target.name, fmt::join(obstacles, "; ")));
}

// The model with its weights rounded to the dtype of the file.
Transformer rounded(const Transformer& model, const ExportTarget& target, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  Transformer copy(model->config());
  const auto source = named_tensors(*model);
  const auto copied = named_tensors(*copy);
  for (size_t i = 0; i < source.size(); ++i) {
    const auto& [name, tensor] = source[i];
    const bool is_kept =
        target.keeps_routers_and_norms &&
        (name.find("norm") != std::string::npos || name.find("router") != std::string::npos);
    copied[i].second.detach().copy_(is_kept ? tensor : tensor.to(dtype));
  }
  copy->eval();
  return copy;
}

void compare_logits(Transformer expected_model,
                    Transformer written,
                    const RoutingPlan& plan,
                    ExportReport& report) {
  const at::NoGradGuard no_grad;
  const auto& config = expected_model->config();
  const int64_t seq = std::min(kCheckTokens, config.max_seq_len);
  const auto tokens = at::randint(config.vocab_size,
                                  {kCheckSequences, seq},
                                  at::detail::createCPUGenerator(1),
                                  at::TensorOptions().dtype(at::kLong));
  written->eval();
  const auto expected = expected_model->forward(tokens, plan).logits;
  report.tokens = tokens;
  report.logits = expected;
  const auto got =
      written->forward(tokens, parse_routing_plan(written->config().training_policy)).logits;
  report.max_abs_logit = expected.abs().max().item<double>();
  report.max_abs_logit_error = (expected - got).abs().max().item<double>();
  if (!(report.max_abs_logit_error <= kTolerance * report.max_abs_logit)) {
    throw RunError(fmt::format(
        "export: expected the written files to give the model's logits (up to {:.4g}), got a "
        "difference of {:.4g}",
        report.max_abs_logit,
        report.max_abs_logit_error));
  }
}

}  // namespace

const std::vector<ExportTarget>& export_targets() {
  static const std::vector<ExportTarget> targets{
      {"hf-jetmoe", jetmoe_obstacles, write_jetmoe, read_jetmoe},
      {"hf-olmoe", olmoe_obstacles, write_olmoe, read_olmoe},
      {"hf-llama",
       llama_export_obstacles,
       write_llama,
       read_llama,
       /*keeps_routers_and_norms=*/false,
       /*joins_partition=*/true},
      {"gguf",
       gguf_obstacles,
       write_gguf,
       read_gguf,
       /*keeps_routers_and_norms=*/true,
       /*joins_partition=*/false,
       /*is_one_file=*/true}};
  return targets;
}

ExportReport export_model(Io& io,
                          const Transformer& model,
                          const std::string& target_name,
                          const ExportRequest& request,
                          const std::string& out) {
  const auto& target = find_target(target_name);
  const OutputDirectory directory{out, request.existing, "config.json"};
  if (target.is_one_file) {
    check_output_file(out, request.existing);
  } else {
    check_output_directory(directory);
  }
  check_expressible(target, model->config(), request.plan);
  ExportReport report;
  report.tensors_read = static_cast<int64_t>(named_tensors(*model).size());
  report.joined_partition =
      target.joins_partition && model->config().ffn.kind == FfnKind::kPartitioned;
  const auto write_and_compare = [&](const std::string& temporary) {
    report.tensors_written = target.write(io, model, request, temporary);
    auto expected = rounded(model, target, request.dtype);
    expected->force_gates(target.joins_partition);
    compare_logits(expected, target.read(io, temporary), request.plan, report);
  };
  if (target.is_one_file) {
    write_output_file(io, out, request.existing, write_and_compare);
    return report;
  }
  write_output_directory(io, directory, [&](const std::string& temporary) {
    for (const auto& [name, bytes] : request.files) {
      write_file(io, temporary + "/" + name, bytes);
    }
    write_and_compare(temporary);
  });
  return report;
}

}  // namespace dsmoe
