// What the ranks of one run agree on and share; trainer.cpp holds the loop and the step.
#include <ATen/Context.h>
#include <fmt/format.h>
#include <torch/version.h>

#include <mutex>

#include "common/config_reader.h"
#include "common/error.h"
#include "common/random_seed.h"
#include "distributed/agreement.h"
#include "train/sharded_optimizer.h"
#include "train/trainer.h"

namespace dsmoe {

int64_t Trainer::n_micro_batches() const {
  return share_micro_batches(config_.train.accumulation, *ranks_);
}

// Before the first collective of training: different programs or data would hang in one later.
void Trainer::check_ranks() {
  share_micro_batches(config_.train.accumulation, *ranks_);
  check_agreement(*ranks_,
                  {{"program", fmt::format("dsmoe {} torch {}", DSMOE_VERSION, TORCH_VERSION)},
                   {"config", config_to_yaml([this](ConfigVisitor& v) { describe(v, config_); })},
                   {"training data", dataset_->hash()},
                   {"tokenizer", dataset_->tokenizer().fingerprint()}});
}

// Rank 0 started or resumed; the others take what it has.
void Trainer::share_state() {
  if (ranks_->is_alone()) return;
  const auto state = ranks_->all_gather(ranks_->is_first() ? state_to_json(state_) : "",
                                        "sending the training state");
  if (!ranks_->is_first()) {
    state_ = parse_state(state.front(), "training state of rank 0");
    loader_.seek(state_.position);
    guard_.restore(state_.guard);
  }
  ranks_->finish_step(state_.step);
  step_.join_ranks(config_.distributed);
  saved_step_ = state_.step == 0 ? -1 : state_.step;
  if (state_.step > 0) scatter_state(optimizer_, *ranks_, restored_optimizer_);
  restored_optimizer_.clear();
}

// A function of the step, so that ranks draw apart and a resume needs no state of theirs, nor of
// another device's.
void Trainer::seed_dropout() {
  const auto index = static_cast<uint64_t>(state_.step * ranks_->size() + ranks_->rank());
  auto generator = at::globalContext().defaultGenerator(model_->device());
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(derive_seed(static_cast<uint64_t>(config_.seed), "dropout", index));
}

void Trainer::note(int64_t step, const std::string& event, const std::string& text) {
  if (metrics_) metrics_->add_event(step, event, text);
}

}  // namespace dsmoe
