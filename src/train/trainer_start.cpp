// Start of a trainer; trainer.cpp has the loop and the step.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/version.h>

#include <nlohmann/json.hpp>

#include "common/config_reader.h"
#include "common/error.h"
#include "common/machine.h"
#include "common/random_seed.h"
#include "common/staged_output.h"
#include "distributed/agreement.h"
#include "model/flops.h"
#include "train/flops.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

// Weights are drawn on the CPU: the same ones for every device.
Transformer make_model(const RunConfig& config, at::Device device) {
  Transformer model(config.model);
  init_weights(model, derive_seed(static_cast<uint64_t>(config.seed), "weights"));
  model->to(device);
  return model;
}

TrainingData open_data(const RunConfig& config) {
  return TrainingData(config.data.train, config.data.weights, config.data.tokenizer);
}

// `RUN/run.json`, for `dsmoe report`.
std::string run_facts(const RunSummary& summary) {
  const nlohmann::ordered_json json = {
      {"parameters_total", summary.parameters.total()},
      {"parameters_non_embedding", summary.parameters.non_embedding()},
      {"data_tokens", summary.data_tokens},
      {"epochs", summary.epochs},
      {"context", summary.context},
      {"tokens_per_step", summary.tokens_per_step},
      {"machine", summary.device == "cpu" ? cpu_model() : summary.device},
      {"isa", name_of(cpu_isa())},
      {"dtype", summary.dtype},
      {"ranks", summary.ranks},
      {"threads", summary.threads}};
  return json.dump(1) + "\n";
}

// A GPU is not shared as a CPU is: there the speed of this moment counts.
void measure_peak(MatrixPeak& peak, at::ScalarType dtype, at::Device device, int64_t threads) {
  if (!device.is_cpu()) {
    peak.add(measure_matrix_speed(dtype, device));
  } else if (const auto speed = measure_quiet_matrix_speed(dtype, threads)) {
    peak.add(*speed);
  }
}

// A run with a document mask also validates one document at a time.
EvalText read_validation(const RunConfig& config, const TrainingData& dataset) {
  if (config.data.validation.empty()) return {};
  return read_eval_text(config.data.validation,
                        dataset.tokenizer(),
                        config.data.document_mask,
                        0,
                        {.field = config.data.field, .separator = config.data.separator});
}

}  // namespace

ResolvedRun resolve_run(RunConfig config, const std::optional<InitSource>& source) {
  config.validate();
  ResolvedRun run;
  run.data = std::make_shared<const TrainingData>(open_data(config));
  const auto& dataset = *run.data;
  int64_t n_tokens = 0;
  for (const auto& corpus : dataset.sources()) n_tokens += corpus.source->n_tokens();
  run.notes = resolve_units(config, n_tokens);
  config.validate();
  if (source) check_init_tokenizer(config, dataset.tokenizer().fingerprint(), *source);
  const int64_t vocab_size = dataset.tokenizer().vocab_size();
  if (config.model.vocab_size == 0) config.model.vocab_size = vocab_size;
  if (config.model.vocab_size < vocab_size) {
    throw Error(fmt::format("model.vocab_size = {} is below the tokenizer's {} ids",
                            config.model.vocab_size,
                            vocab_size));
  }
  config.data.seq_len = config.seq_len();
  if (config.threads == 0) config.threads = at::get_num_threads();
  config.train.compute_dtype = resolve_compute_dtype(config.train.compute_dtype, config.device);
  run.config = std::move(config);
  return run;
}

RunConfig resolve_run_config(RunConfig config, const std::optional<InitSource>& source) {
  return resolve_run(std::move(config), source).config;
}

RunSummary preview_run(Io& io,
                       const ResolvedRun& run,
                       const std::string& resume,
                       int64_t world_size,
                       int64_t ranks_of_host) {
  const auto start = find_start(io, run.config, *run.data, resume);
  read_validation(run.config, *run.data);
  const auto place = this_place(run.config.run_dir, world_size, ranks_of_host);
  return summarise_run(run.config, *run.data, place, start);
}

Trainer::Trainer(Io& io,
                 const RunConfig& config,
                 const std::string& resume,
                 at::Device device,
                 std::shared_ptr<RankGroup> ranks,
                 TrainMachine machine)
    : io_(io),
      ranks_(std::move(ranks)),
      config_(config),
      dataset_(std::make_shared<TrainingData>(open_data(config))),
      validation_(read_validation(config, *dataset_)),
      loader_(dataset_->sources(),
              {.seq_len = config.seq_len(),
               .batch_size = config.train.batch_size,
               .seed = derive_seed(static_cast<uint64_t>(config.seed), "data"),
               .prefetch = config.data.prefetch,
               .document_mask = config.data.document_mask,
               .pinned = device.is_cuda(),
               .rank = ranks_->rank(),
               .n_ranks = ranks_->world_size()}),
      model_(make_model(config, device)),
      settings_(step_settings(config)),
      shards_(make_shards(model_, config, *ranks_)),
      optimizer_(make_optimizer(model_, shards_.get(), config, *ranks_)),
      step_(model_, optimizer_, settings_, *ranks_, shards_.get()),
      checkpoints_({io_, config_, *dataset_, model_, *ranks_, shards_.get()}, optimizer_),
      bad_steps_({io_, config_, *dataset_, model_, *ranks_, shards_.get()}, loader_),
      watch_(config.train.guard, settings_.plan),
      trace_(config.run_dir, ranks_->rank() == 0 ? config.train.trace_steps : 0),
      machine_(std::move(machine)),
      policies_(validation_policies(config)) {
  check_ranks();
  at::set_num_threads(static_cast<int>(config.threads));
  use_fast_float32_products(settings_.fast_float32);
  if (machine_.peak) {
    measure_peak(*machine_.peak, settings_.forward.compute_dtype, model_->device(), config.threads);
  }
  model_->train();
  state_ = checkpoints_.start(resume);
  loader_.seek(state_.position);
  bad_steps_.restore(state_.guard);
  ranks_->finish_step(state_.step);
  step_.join_ranks(config_.distributed);
  if (ranks_->rank() == 0) {
    std::vector<std::string> policies;
    if (!validation_.sequences.empty() && config.train.validate_every > 0) {
      for (const auto& policy : policies_) policies.push_back(policy.name);
    }
    metrics_ = std::make_unique<TrainMetrics>(
        io, config.run_dir, state_.step, config.train.steps, policies, machine_.clock);
    metrics_->add_config(config_to_yaml([this](ConfigVisitor& v) { describe(v, config_); }));
    replace_file(io, config.run_dir + "/run.json", run_facts(summary()));
  }
  interval_.first_step = state_.step;
}

RunSummary Trainer::summary() const {
  const auto place = this_place(config_.run_dir, ranks_->world_size(), ranks_->world_size());
  const StartPoint start{.resumed_from = checkpoints_.resumed_from(), .step = state_.step};
  return summarise_run(config_, *dataset_, place, start, config_.train.validate_policies);
}

// Before the first collective of training: with other programs or data it would block.
void Trainer::check_ranks() {
  share_micro_batches(config_.train.accumulation, *ranks_);
  check_agreement(*ranks_,
                  {{"program", fmt::format("dsmoe {} torch {}", DSMOE_VERSION, TORCH_VERSION)},
                   {"config", config_to_yaml([this](ConfigVisitor& v) { describe(v, config_); })},
                   {"training data", dataset_->hash()},
                   {"tokenizer", dataset_->tokenizer().fingerprint()}});
}

}  // namespace dsmoe
