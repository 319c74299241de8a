// What keeps a bad step away from the weights; trainer.cpp holds the loop and the step.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "common/staged_output.h"
#include "train/non_finite.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

// Where a training sequence stands in its corpus, and the documents it touches, counted from 0.
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

// Expert use is measured on steps that are logged; the rest of the hooks are those of tests.
StepHooks Trainer::step_hooks() {
  StepHooks hooks;
  hooks.on_output = [this](const ModelOutput& output) {
    const int64_t step = state_.step + 1;
    watch_.add(output, step % config_.train.log_every == 0 || step == config_.train.steps);
  };
  hooks.numbers_to_add = [this] { return watch_.step_numbers(); };
  if (hooks_.on_loss) {
    hooks.on_loss = [this](at::Tensor& loss) { hooks_.on_loss(state_.step, loss); };
  }
  if (hooks_.on_gradients) {
    hooks.on_gradients = [this] { hooks_.on_gradients(state_.step, named_parameters(*model_)); };
  }
  hooks.accepts = [this](const StepResult& result, const std::vector<Batch>& batches) {
    return passes_guards(result, batches);
  };
  return hooks;
}

// False: the update of this step is dropped. Throws where the config says to stop.
bool Trainer::passes_guards(const StepResult& result, const std::vector<Batch>& batches) {
  const auto loss = result.loss.total.item<double>();
  const double norm = result.gradient_norm;
  const bool is_finite = std::isfinite(loss) && std::isfinite(norm);
  const auto spike = guard_.judge(loss, norm);
  if (!spike) {
    guard_.accept(loss, norm);
    return true;
  }
  std::string reason = *spike;
  if (!is_finite) {
    std::optional<NonFiniteOrigin> origin;
    for (const auto& batch : batches) {
      if (!origin) origin = locate_non_finite(model_, batch, settings_.plan, settings_.forward);
    }
    reason = fmt::format(
        "expected a finite loss and gradient, got loss {} and gradient norm {}, {}",
        format_loss(loss, loss_terms(result.loss, settings_.loss)),
        norm,
        origin ? origin->to_string() : "weights, activations and gradients themselves are finite");
  }
  report_bad_step(result, batches, reason);
  const bool is_skipped = is_finite ? config_.train.guard.on_spike == OnSpike::kSkip
                                    : config_.train.guard.on_non_finite == OnNonFinite::kSkip;
  if (is_skipped) {
    note(state_.step + 1, "skipped", reason);
    guard_.skip(loss, norm);
    return false;
  }
  if (is_finite) {
    note(state_.step + 1, "spike", reason);
    guard_.accept(loss, norm);
    return true;
  }
  throw RunError(
      fmt::format("step {}: {}; training sequences {} to {}; the weights are those of step {}",
                  state_.step + 1,
                  reason,
                  batches.front().positions.front(),
                  batches.back().positions.back(),
                  state_.step));
}

// Keeps what names the step's data.
void Trainer::report_bad_step(const StepResult& result,
                              const std::vector<Batch>& batches,
                              const std::string& reason) {
  nlohmann::ordered_json report = {{"step", state_.step + 1},
                                   {"reason", reason},
                                   {"loss", result.loss.total.item<double>()},
                                   {"gradient_norm", result.gradient_norm},
                                   {"dataset_hash", dataset_->hash()},
                                   {"sequences", nlohmann::json::array()}};
  for (const auto& batch : batches) {
    for (const int64_t position : batch.positions) {
      const auto sample = loader_.sample(position);
      auto sequence =
          describe_sequence(sample, *dataset_->sources()[sample.corpus].source, config_.seq_len());
      sequence["position"] = position;
      sequence["corpus"] = config_.data.train[sample.corpus];
      report["sequences"].push_back(std::move(sequence));
    }
  }
  const auto directory = config_.run_dir + "/bad_steps";
  make_directories(io_, directory);
  // Each rank names its own sequences.
  const auto rank = ranks_->is_first() ? "" : fmt::format("-rank-{:05}", ranks_->rank());
  replace_file(io_,
               fmt::format("{}/step-{:08}{}.json", directory, state_.step + 1, rank),
               report.dump(1) + "\n");
}

}  // namespace dsmoe
