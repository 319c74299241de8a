// How a run begins, resumes and is saved; trainer.cpp holds the loop and the step.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/version.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <mutex>

#include "common/config_reader.h"
#include "common/error.h"
#include "common/log.h"
#include "common/random_seed.h"
#include "common/staged_output.h"
#include "data/tokenizer_files.h"
#include "model/flops.h"
#include "train/flops.h"
#include "train/init_source.h"
#include "train/random_state.h"
#include "train/resume_check.h"
#include "train/sharded_optimizer.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStateFile = "state-rank-00000.json";
constexpr const char* kConfigFile = "config.json";     // of a checkpoint
constexpr const char* kRunConfigFile = "config.yaml";  // of the run, for people
constexpr size_t kMaxStateBytes = 1 << 20;

Describe describer(RunConfig& config) {
  return [&config](ConfigVisitor& visitor) { describe(visitor, config); };
}

// Weights are drawn on the CPU: the same ones for every device.
Transformer make_model(const RunConfig& config, at::Device device) {
  Transformer model(config.model);
  init_weights(model, derive_seed(static_cast<uint64_t>(config.seed), "weights"));
  model->to(device);
  return model;
}

// The one of its kind that was selected, where there are many.
at::Device configured_device(const RunConfig& config) {
  return config.device == DeviceKind::kCuda ? at::kCUDA : at::kCPU;
}

TrainingData open_data(const RunConfig& config) {
  return TrainingData(config.data.train, config.data.weights, config.data.tokenizer);
}

// What is trained one document at a time is scored so.
EvalText read_validation(const RunConfig& config, const TrainingData& dataset) {
  if (config.data.validation.empty()) return {};
  return read_eval_text(config.data.validation,
                        dataset.tokenizer(),
                        config.data.document_mask,
                        0,
                        {.field = config.data.field, .separator = config.data.separator});
}

// A directory without a run may hold files of a person that have the names of a run's.
void check_new_run_directory(const std::string& run_dir) {
  if (fs::exists(run_dir + "/run.lock") || fs::exists(run_dir + "/checkpoints")) return;
  for (const char* name : {kRunConfigFile, "metrics.jsonl"}) {
    if (!fs::exists(fs::symlink_status(run_dir + "/" + name))) continue;
    throw Error(
        fmt::format("run_dir: '{}' holds no run, but a file '{}' that a run would replace; choose "
                    "another run_dir or move the file",
                    run_dir,
                    name));
  }
}

// Guards every caller: a config that inherited its model passes.
void check_init(Io& io,
                RunConfig config,
                const VerifiedCheckpoint& checkpoint,
                const Tokenizer& tokenizer) {
  const InitSource source{
      .directory = checkpoint.directory,
      .model = read_model_config(io, checkpoint.directory),
      .tokenizer_fingerprint = checkpoint.manifest.tokenizer_fingerprint,
  };
  const auto keys = config_keys(describer(config));
  inherit_model(config, {keys.begin(), keys.end()}, source);
  check_init_tokenizer(config, tokenizer.fingerprint(), source);
}

void check_has_state(const VerifiedCheckpoint& checkpoint) {
  for (const auto& file : checkpoint.manifest.files) {
    if (file.name == kStateFile) return;
  }
  throw Error(
      fmt::format("{}: expected {} to resume from, got none; a converted checkpoint starts a new "
                  "run as train.init_from",
                  checkpoint.directory,
                  kStateFile));
}

std::string make_run_id(uint64_t seed) {
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  return fmt::format("{:016x}", derive_seed(seed, "run", static_cast<uint64_t>(now)));
}

}  // namespace

RunConfig resolve_run_config(RunConfig config, const std::optional<InitSource>& source) {
  config.validate();
  const TrainingData dataset = open_data(config);
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
  return config;
}

Trainer::Trainer(Io& io,
                 const RunConfig& config,
                 const std::string& resume,
                 TrainHooks hooks,
                 std::shared_ptr<RankGroup> ranks)
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
               .pinned = hooks.device.value_or(configured_device(config)).is_cuda(),
               .rank = ranks_->rank(),
               .n_ranks = ranks_->size()}),
      model_(make_model(config, hooks.device.value_or(configured_device(config)))),
      settings_(step_settings(config)),
      optimizer_(named_parameters(*model_),
                 config.train.optimizer,
                 optimizer_shard(config.distributed.shard_optimizer, *ranks_)),
      step_(model_, optimizer_, settings_, *ranks_),
      store_(io,
             config.run_dir,
             {.keep_last = config.train.keep_checkpoints,
              .keep_every = config.train.keep_every,
              .keep_best = config.train.keep_best}),
      saver_(store_, config.train.on_save_failure),
      guard_(config.train.guard),
      watch_(config.train.guard, settings_.plan),
      trace_(config.run_dir, ranks_->is_first() ? config.train.trace_steps : 0),
      hooks_(std::move(hooks)) {
  check_ranks();
  at::set_num_threads(static_cast<int>(config.threads));
  flops_per_token_ = train_flops_per_token(config.model, config.seq_len());
  use_fast_float32_products(settings_.fast_float32);
  peak_flops_ = measure_matrix_speed(settings_.forward.compute_dtype, model_->device());
  step_.set_hooks(step_hooks());
  model_->train();
  if (ranks_->is_first()) {
    check_new_run_directory(config.run_dir);
    make_directories(io, config.run_dir);
    lock_.emplace(io, config.run_dir);
    start(resume);
    replace_file(io, config.run_dir + "/" + kRunConfigFile, config_to_yaml(describer(config_)));
    metrics_ = std::make_unique<TrainMetrics>(io, config.run_dir, state_.step, config.train.steps);
  }
  share_state();
}

void Trainer::start(const std::string& resume) {
  store_.clean();
  std::optional<VerifiedCheckpoint> checkpoint;
  if (resume == "auto") {
    checkpoint = find_newest_checkpoint(io_, config_.run_dir);
  } else if (resume != "none") {
    checkpoint = find_checkpoint(io_, resume);
  } else if (!list_checkpoints(config_.run_dir).empty()) {
    throw Error(fmt::format(
        "run_dir: '{}' has checkpoints of another run; pass --resume auto or another run_dir",
        config_.run_dir));
  }
  if (checkpoint) {
    refuse_later_steps(*checkpoint, resume);
    restore(*checkpoint);
    store_.set_aside_after(state_.step);
    const auto own = list_checkpoints(config_.run_dir);
    if (!own.empty() && own.front() == checkpoint->directory) {
      store_.publish(state_.step, state_.best_step);
    }
    return;
  }
  const auto seed = static_cast<uint64_t>(config_.seed);
  state_.run_id = make_run_id(seed);
  if (!config_.train.init_from.empty()) {
    const auto source = find_checkpoint(io_, config_.train.init_from);
    check_init(io_, config_, source, dataset_->tokenizer());
    load_tensors(io_, source, "model-", named_tensors(*model_));
    log_info(fmt::format("weights from {}", source.directory));
  }
  auto generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(derive_seed(seed, "dropout"));
}

// What is past a checkpoint that was asked for by name belongs to another course of the run.
void Trainer::refuse_later_steps(const VerifiedCheckpoint& checkpoint, const std::string& resume) {
  const auto directories = list_checkpoints(config_.run_dir);
  if (resume == "auto" || directories.empty()) return;
  const auto last = fs::path(directories.front()).filename().string();
  if (last <= fs::path(checkpoint.directory).filename().string()) return;
  throw Error(fmt::format(
      "--resume {}: run_dir '{}' has {}, which is later; remove it or take another run_dir",
      resume,
      config_.run_dir,
      last));
}

void Trainer::restore(const VerifiedCheckpoint& checkpoint) {
  const auto& directory = checkpoint.directory;
  check_has_state(checkpoint);
  RunConfig saved;
  read_config_file(directory + "/" + kConfigFile, {}, describer(saved), PathSyntax::kLiteral);
  check_config_change(saved, config_);
  check_origin(checkpoint.manifest,
               {.dataset_hash = dataset_->hash(),
                .tokenizer_fingerprint = dataset_->tokenizer().fingerprint(),
                .code_version = DSMOE_VERSION,
                .torch_version = TORCH_VERSION});
  load_tensors(io_, checkpoint, "model-", named_tensors(*model_));
  restored_optimizer_ =
      optimizer_.is_sharded() ? optimizer_.empty_state() : optimizer_.named_state();
  load_tensors(io_, checkpoint, "optimizer-", restored_optimizer_);
  const auto path = directory + "/" + kStateFile;
  state_ = parse_state(read_file(io_, path, kMaxStateBytes), path);
  loader_.seek(state_.position);
  guard_.restore(state_.guard);
  resumed_from_ = directory;
  saved_step_ = state_.step;
  log_info(fmt::format("resumed from {} at step {}", directory, state_.step));
  // Last: whatever ran before may have drawn numbers.
  restore_random_state(state_.random_state);
}

void Trainer::save() {
  if (saved_step_ == state_.step) return;
  auto optimizer_state = gather_state(optimizer_, *ranks_);
  saved_step_ = state_.step;
  if (!ranks_->is_first()) return;
  note_best(state_);
  state_.guard = guard_.history();
  state_.random_state = capture_random_state();
  CheckpointContents contents;
  contents.manifest.run_id = state_.run_id;
  contents.manifest.step = state_.step;
  contents.manifest.dataset_hash = dataset_->hash();
  contents.manifest.tokenizer_fingerprint = dataset_->tokenizer().fingerprint();
  contents.manifest.code_version = DSMOE_VERSION;
  contents.manifest.torch_version = TORCH_VERSION;
  contents.model = named_tensors(*model_);
  contents.optimizer = std::move(optimizer_state);
  contents.files.emplace_back(kConfigFile, config_to_json(describer(config_)));
  contents.files.emplace_back(kStateFile, state_to_json(state_));
  for (auto& file : tokenizer_files(dataset_->tokenizer())) {
    contents.files.emplace_back(file.name, std::move(file.bytes));
  }
  contents.best_step = state_.best_step;
  saver_.start(contents);
}

}  // namespace dsmoe
