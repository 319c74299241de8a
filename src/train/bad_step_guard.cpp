#include "train/bad_step_guard.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/error.h"
#include "common/staged_output.h"
#include "train/non_finite.h"

namespace dsmoe {
namespace {

// Position of a training sequence in its corpus, and its documents, counted from 0.
nlohmann::ordered_json describe_sequence(const TrainingSample& sample,
                                         const TokenSource& source,
                                         int64_t seq_len) {
  const int64_t first = source.documents_before(sample.begin + 1) - 1;
  const int64_t last = source.documents_before(sample.begin + seq_len) - 1;
  return {{"epoch", sample.epoch},
          {"first_token", sample.begin},
          {"documents", {std::max<int64_t>(first, 0), std::max<int64_t>(last, 0)}}};
}

}  // namespace

BadStepGuard::BadStepGuard(const TrainContext& context, const DataLoader& loader)
    : context_(context),
      loader_(loader),
      settings_(step_settings(context.config)),
      spikes_(context.config.train.guard) {}

StepVerdict BadStepGuard::judge(int64_t step,
                                const StepResult& result,
                                const std::vector<Batch>& batches) {
  const auto loss = result.loss.total.item<double>();
  const double norm = result.gradient_norm;
  const auto spike = spikes_.judge(loss, norm);
  if (!spike) {
    spikes_.accept(loss, norm);
    return {};
  }
  const bool is_finite = std::isfinite(loss) && std::isfinite(norm);
  const auto reason = is_finite ? *spike : describe_non_finite(result, batches);
  report(step, result, batches, reason);
  const auto& guard = context_.config.train.guard;
  const bool is_skipped =
      is_finite ? guard.on_spike == OnSpike::kSkip : guard.on_non_finite == OnNonFinite::kSkip;
  if (is_skipped) {
    spikes_.skip(loss, norm);
    return {.is_applied = false, .event = "skipped", .reason = reason};
  }
  if (is_finite) {
    spikes_.accept(loss, norm);
    return {.is_applied = true, .event = "spike", .reason = reason};
  }
  throw RunError(
      fmt::format("step {}: {}; training sequences {} to {}; the weights are those of step {}",
                  step,
                  reason,
                  batches.front().positions.front(),
                  batches.back().positions.back(),
                  step - 1));
}

std::string BadStepGuard::describe_non_finite(const StepResult& result,
                                              const std::vector<Batch>& batches) {
  std::optional<NonFiniteOrigin> origin;
  for (const auto& batch : batches) {
    if (origin) break;
    origin = locate_non_finite(context_.model, batch, settings_.plan, settings_.forward);
  }
  if (!origin && context_.shards != nullptr) {
    if (const auto name = context_.shards->first_non_finite_gradient()) {
      origin = NonFiniteOrigin{
          .stage = "gradients", .tensor = *name, .layer = {}, .kind = {}, .expert = {}};
    }
  }
  return fmt::format(
      "expected a finite loss and gradient, got loss {} and gradient norm {}, {}",
      format_loss(result.loss.total.item<double>(), loss_terms(result.loss, settings_.loss)),
      result.gradient_norm,
      origin ? origin->to_string() : "weights, activations and gradients themselves are finite");
}

void BadStepGuard::report(int64_t step,
                          const StepResult& result,
                          const std::vector<Batch>& batches,
                          const std::string& reason) const {
  const auto& [io, config, dataset, model, ranks, shards] = context_;
  nlohmann::ordered_json report = {{"step", step},
                                   {"reason", reason},
                                   {"loss", result.loss.total.item<double>()},
                                   {"gradient_norm", result.gradient_norm},
                                   {"dataset_hash", dataset.hash()},
                                   {"sequences", nlohmann::json::array()}};
  for (const auto& batch : batches) {
    for (const int64_t position : batch.positions) {
      const auto sample = loader_.sample(position);
      auto sequence =
          describe_sequence(sample, *dataset.sources()[sample.corpus].source, config.seq_len());
      sequence["position"] = position;
      sequence["corpus"] = config.data.train[sample.corpus];
      report["sequences"].push_back(std::move(sequence));
    }
  }
  const auto directory = config.run_dir + "/bad_steps";
  make_directories(io, directory);
  // Each rank names its own sequences.
  const auto suffix = ranks.rank() == 0 ? "" : fmt::format("-rank-{:05}", ranks.rank());
  replace_file(
      io, fmt::format("{}/step-{:08}{}.json", directory, step, suffix), report.dump(1) + "\n");
}

}  // namespace dsmoe
