#include "train/run_checkpoints.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <torch/version.h>

#include <chrono>
#include <filesystem>
#include <mutex>

#include "common/config_reader.h"
#include "common/error.h"
#include "common/log.h"
#include "common/random_seed.h"
#include "common/staged_output.h"
#include "data/tokenizer_files.h"
#include "train/init_source.h"
#include "train/random_state.h"
#include "train/resume_check.h"
#include "train/sharded_optimizer.h"

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

// A directory without a run may hold user files with the names of a run's files.
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

void check_has_state(const std::string& directory, const CheckpointManifest& manifest) {
  for (const auto& file : manifest.files) {
    if (file.name == kStateFile) return;
  }
  throw Error(
      fmt::format("{}: expected {} to resume from, got none; a converted checkpoint starts a new "
                  "run as train.init_from",
                  directory,
                  kStateFile));
}

// Whether a run may go on from a checkpoint: its state, config, data and program.
void check_resumes(const RunConfig& config,
                   const TrainingData& dataset,
                   const std::string& directory,
                   const CheckpointManifest& manifest) {
  check_has_state(directory, manifest);
  RunConfig saved;
  read_config_file(directory + "/" + kConfigFile, {}, describer(saved), PathSyntax::kLiteral);
  check_config_change(saved, config);
  check_origin(manifest,
               {.dataset_hash = dataset.hash(),
                .tokenizer_fingerprint = dataset.tokenizer().fingerprint(),
                .code_version = DSMOE_VERSION,
                .torch_version = TORCH_VERSION});
}

void refuse_checkpoints_of_another_run(const std::string& run_dir) {
  if (list_checkpoints(run_dir).empty()) return;
  throw Error(fmt::format(
      "run_dir: '{}' has checkpoints of another run; pass --resume auto or another run_dir",
      run_dir));
}

// Checkpoints after one that was requested by path belong to another history of the run.
void refuse_later_steps(const std::string& run_dir,
                        const std::string& directory,
                        const std::string& resume) {
  const auto directories = list_checkpoints(run_dir);
  if (resume == "auto" || directories.empty()) return;
  const auto last = fs::path(directories.front()).filename().string();
  if (last <= fs::path(directory).filename().string()) return;
  throw Error(
      fmt::format("--resume {}: run_dir '{}' has the later {}; remove it or use another run_dir",
                  resume,
                  run_dir,
                  last));
}

// The newest checkpoint of a run with a manifest that can be read, or the checkpoint itself; empty
// if a run has none.
std::string newest_readable(Io& io, const std::string& path) {
  const auto directories = list_checkpoints(path);
  for (const auto& directory : directories) {
    try {
      read_manifest(io, directory);
      return directory;
    } catch (const Error&) {
      if (directory == directories.back()) throw;
    }
  }
  return fs::is_directory(fs::path(path) / "checkpoints") ? "" : path;
}

std::string make_run_id(uint64_t seed) {
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  return fmt::format("{:016x}", derive_seed(seed, "run", static_cast<uint64_t>(now)));
}

}  // namespace

StartPoint find_start(Io& io,
                      const RunConfig& config,
                      const TrainingData& dataset,
                      const std::string& resume) {
  const auto& run_dir = config.run_dir;
  check_new_run_directory(run_dir);
  check_not_locked(io, run_dir);
  StartPoint start;
  start.own_checkpoints = static_cast<int64_t>(list_checkpoints(run_dir).size());
  std::string directory;
  if (resume == "none") {
    refuse_checkpoints_of_another_run(run_dir);
  } else if (resume != "auto") {
    directory = newest_readable(io, resume);
    if (directory.empty()) {
      throw Error(fmt::format("{}: expected a checkpoint in the run, got none yet", resume));
    }
  } else if (start.own_checkpoints > 0) {
    directory = newest_readable(io, run_dir);
  }
  if (directory.empty()) return start;
  refuse_later_steps(run_dir, directory, resume);
  const auto manifest = read_manifest(io, directory);
  check_resumes(config, dataset, directory, manifest);
  start.resumed_from = directory;
  start.step = manifest.step;
  return start;
}

RunCheckpoints::RunCheckpoints(const TrainContext& context, Optimizer& optimizer)
    : context_(context),
      optimizer_(optimizer),
      store_(context.io,
             context.config.run_dir,
             {.keep_last = context.config.train.keep_checkpoints,
              .keep_every = context.config.train.keep_every,
              .keep_best = context.config.train.keep_best}),
      saver_(store_, context.config.train.on_save_failure) {}

TrainState RunCheckpoints::start(const std::string& resume) {
  TrainState state;
  if (context_.ranks.rank() == 0) {
    auto config = context_.config;
    check_new_run_directory(config.run_dir);
    make_directories(context_.io, config.run_dir);
    lock_.emplace(context_.io, config.run_dir);
    state = start_on_first_rank(resume);
    replace_file(
        context_.io, config.run_dir + "/" + kRunConfigFile, config_to_yaml(describer(config)));
  }
  return context_.ranks.world_size() == 1 ? state : share(state);
}

TrainState RunCheckpoints::start_on_first_rank(const std::string& resume) {
  const auto& [io, config, dataset, model, ranks, shards] = context_;
  store_.clean();
  std::optional<VerifiedCheckpoint> checkpoint;
  if (resume == "auto") {
    checkpoint = find_newest_checkpoint(io, config.run_dir);
  } else if (resume != "none") {
    checkpoint = find_checkpoint(io, resume);
  } else {
    refuse_checkpoints_of_another_run(config.run_dir);
  }
  if (!checkpoint) return start_new();
  refuse_later_steps(config.run_dir, checkpoint->directory, resume);
  auto state = resume_from(*checkpoint);
  store_.set_aside_after(state.step);
  const auto own = list_checkpoints(config.run_dir);
  if (!own.empty() && own.front() == checkpoint->directory) {
    store_.publish(state.step, state.best_step);
  }
  return state;
}

TrainState RunCheckpoints::start_new() {
  const auto& [io, config, dataset, model, ranks, shards] = context_;
  const auto seed = static_cast<uint64_t>(config.seed);
  TrainState state;
  state.run_id = make_run_id(seed);
  if (!config.train.init_from.empty()) {
    const auto source = find_checkpoint(io, config.train.init_from);
    check_init(io, config, source, dataset.tokenizer());
    load_tensors(io, source, "model-", weights_to_fill());
    log_info(fmt::format("weights from {}", source.directory));
  }
  auto generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(derive_seed(seed, "dropout"));
  return state;
}

TrainState RunCheckpoints::resume_from(const VerifiedCheckpoint& checkpoint) {
  const auto& [io, config, dataset, model, ranks, shards] = context_;
  const auto& directory = checkpoint.directory;
  check_resumes(config, dataset, directory, checkpoint.manifest);
  load_tensors(io, checkpoint, "model-", weights_to_fill());
  restored_optimizer_ = shards != nullptr         ? shards->empty_state()
                        : optimizer_.is_sharded() ? optimizer_.empty_state()
                                                  : optimizer_.named_state();
  load_tensors(io, checkpoint, "optimizer-", restored_optimizer_);
  const auto path = directory + "/" + kStateFile;
  auto state = parse_state(read_file(io, path, kMaxStateBytes), path);
  resumed_from_ = directory;
  saved_step_ = state.step;
  log_info(fmt::format("resumed from {} at step {}", directory, state.step));
  // Last, because earlier steps may draw random numbers.
  restore_random_state(state.random_state);
  return state;
}

// The weights of the model, or tensors that share() sends to the shards.
NamedTensors RunCheckpoints::weights_to_fill() {
  if (context_.shards == nullptr) return named_tensors(*context_.model);
  restored_model_ = context_.shards->empty_masters();
  return restored_model_;
}

// Gives every rank the numbers and optimizer state of rank 0.
TrainState RunCheckpoints::share(const TrainState& state) {
  auto& ranks = context_.ranks;
  const auto text =
      ranks.all_gather(ranks.rank() == 0 ? state_to_json(state) : "", "sending the training state");
  const auto shared =
      ranks.rank() == 0 ? state : parse_state(text.front(), "training state of rank 0");
  saved_step_ = shared.step == 0 ? -1 : shared.step;
  if (auto* shards = context_.shards; shards != nullptr) {
    if (shared.step > 0 || !context_.config.train.init_from.empty()) {
      shards->assign_masters(restored_model_);
    }
    if (shared.step > 0) shards->assign_state(optimizer_, restored_optimizer_);
  } else if (shared.step > 0) {
    scatter_state(optimizer_, ranks, restored_optimizer_);
  }
  restored_optimizer_.clear();
  restored_model_.clear();
  return shared;
}

void RunCheckpoints::save(TrainState& state) {
  if (saved_step_ == state.step) return;
  const auto& [io, config, dataset, model, ranks, shards] = context_;
  auto weights = shards != nullptr ? shards->whole_masters() : named_tensors(*model);
  auto optimizer_state =
      shards != nullptr ? shards->whole_state(optimizer_) : gather_state(optimizer_, ranks);
  saved_step_ = state.step;
  if (ranks.rank() != 0) return;
  note_best(state);
  state.random_state = capture_random_state();
  CheckpointContents contents;
  contents.manifest.run_id = state.run_id;
  contents.manifest.step = state.step;
  contents.manifest.dataset_hash = dataset.hash();
  contents.manifest.tokenizer_fingerprint = dataset.tokenizer().fingerprint();
  contents.manifest.code_version = DSMOE_VERSION;
  contents.manifest.torch_version = TORCH_VERSION;
  contents.model = std::move(weights);
  contents.optimizer = std::move(optimizer_state);
  auto described = config;
  contents.files.emplace_back(kConfigFile, config_to_json(describer(described)));
  contents.files.emplace_back(kStateFile, state_to_json(state));
  for (auto& file : tokenizer_files(dataset.tokenizer())) {
    contents.files.emplace_back(file.name, std::move(file.bytes));
  }
  contents.best_step = state.best_step;
  saver_.start(contents);
}

std::string RunCheckpoints::finish() {
  saver_.finish();
  return saver_.newest().empty() ? resumed_from_ : saver_.newest();
}

}  // namespace dsmoe
