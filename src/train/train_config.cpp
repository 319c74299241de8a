#include "train/train_config.h"

#include <fmt/format.h>

#include "common/config_visitor.h"
#include "common/error.h"

namespace dsmoe {
namespace {

constexpr int64_t kMany = int64_t{1} << 40;
constexpr int64_t kManyTokens = int64_t{1} << 50;
constexpr auto kApplied = ResumeRule::kApplied;
constexpr auto kFree = ResumeRule::kFree;

void describe_data(ConfigVisitor& v, DataConfig& config) {
  v.begin_section("data", "tokens");
  v.path_list("train",
              config.train,
              {.doc = "directories made by dsmoe tokenize, or Megatron pairs (the path without "
                      ".bin and .idx); a single text is a list of one",
               .resume = kFree});
  v.number_list("weights",
                config.weights,
                0.0,
                1e9,
                {.doc = "share of each entry of train in the training sequences, up to a common "
                        "factor; empty: equal"});
  v.path("tokenizer",
         config.tokenizer,
         {.doc = "tokenizer of Megatron pairs: bytes, a .model file or a directory with tokenizer "
                 "files; empty: that of the shards",
          .resume = kFree});
  v.path("validation",
         config.validation,
         {.doc = "directory made by dsmoe tokenize, or a file of text or JSON lines; empty: no "
                 "validation",
          .resume = kFree});
  v.text("field",
         config.field,
         {.doc = "key of the text if validation is a file of JSON lines; empty: text",
          .resume = kFree});
  v.text(
      "separator",
      config.separator,
      {.doc = "separator of documents if validation is a file of plain text; empty: one document",
       .resume = kFree});
  v.integer("seq_len",
            config.seq_len,
            0,
            1 << 20,
            {.doc = "length of a training sequence; 0: model.max_seq_len", .unit = "tokens"});
  v.boolean("document_mask",
            config.document_mask,
            {.doc = "no token attends to another document of its sequence, and positions restart "
                    "with each document"});
  v.integer("prefetch",
            config.prefetch,
            0,
            1024,
            {.doc = "micro-batches that a thread prepares ahead; 0: none", .resume = kFree});
  v.end_section();
}

void describe_schedule(ConfigVisitor& v, ScheduleConfig& config) {
  v.begin_section("schedule", "learning rate");
  choice(v,
         "kind",
         config.kind,
         {{"cosine", ScheduleKind::kCosine},
          {"wsd", ScheduleKind::kWsd},
          {"constant", ScheduleKind::kConstant}},
         {.doc = "shape after the warm-up", .resume = kApplied});
  v.real("peak",
         config.peak,
         0.0,
         10.0,
         {.doc = "learning rate of the first step after the warm-up, and of every later one until "
                 "the schedule falls",
          .resume = kApplied});
  v.real(
      "final_ratio",
      config.final_ratio,
      0.0,
      1.0,
      {.doc = "learning rate as a share of the peak that the schedule would reach one step after "
              "the last; the last step is higher by (1 - final_ratio) times 1/decay_steps (wsd "
              "linear), 1 - sqrt(1 - 1/decay_steps) (wsd one_minus_sqrt) or about 2.5 / (steps - "
              "warmup_steps)^2 (cosine); constant, and wsd without decay_steps, stay at the peak",
       .resume = kApplied,
       .needs = config.kind == ScheduleKind::kConstant ? "train.schedule.kind: cosine or wsd"
                                                       : nullptr});
  v.integer("warmup_steps",
            config.warmup_steps,
            0,
            kMany,
            {.doc = "linear rise: step n, counted from 1, takes peak * n / warmup_steps; 0 is off",
             .unit = "steps",
             .resume = kApplied});
  v.text("warmup",
         config.warmup,
         {.doc = "instead of warmup_steps: a share of the steps as 2%, steps as 200, or tokens as "
                 "10M tokens, rounded up to a step; empty: warmup_steps",
          .resume = kFree});
  const char* wsd = config.kind == ScheduleKind::kWsd ? nullptr : "train.schedule.kind: wsd";
  v.integer(
      "decay_steps",
      config.decay_steps,
      0,
      kMany,
      {.doc =
           "wsd: length of the decay at the end; its first step still has the peak rate; 0: none",
       .unit = "steps",
       .resume = kApplied,
       .needs = wsd});
  choice(v,
         "decay_shape",
         config.decay_shape,
         {{"linear", DecayShape::kLinear}, {"one_minus_sqrt", DecayShape::kOneMinusSqrt}},
         {.doc = "wsd: fraction of the way from peak to final_ratio after n steps of decay: n / "
                 "decay_steps, or its square root",
          .resume = kApplied,
          .needs = wsd});
  v.end_section();
}

void describe_optimizer(ConfigVisitor& v, OptimizerConfig& config) {
  v.begin_section("optimizer", "AdamW");
  v.real("beta1",
         config.beta1,
         0.0,
         1.0,
         {.doc = "decay of the mean of gradients", .resume = kApplied});
  v.real("beta2",
         config.beta2,
         0.0,
         1.0,
         {.doc = "decay of the mean of their squares", .resume = kApplied});
  v.real("eps",
         config.eps,
         0.0,
         1.0,
         {.doc = "added to the root of the corrected mean of squares", .resume = kApplied});
  v.real("weight_decay",
         config.weight_decay,
         0.0,
         10.0,
         {.doc = "each step first multiplies matrices, embeddings among them, by 1 - learning rate "
                 "* weight_decay; norms and biases keep their values; 0 is off",
          .resume = kApplied});
  v.real("clip_norm",
         config.clip_norm,
         0.0,
         1e9,
         {.doc = "bound of the global gradient norm; 0 is off", .resume = kApplied});
  v.end_section();
}

// What the loss terms need, each null where the model has it.
struct LossNeeds {
  const char* softmax_ffn = nullptr;
  const char* moa = nullptr;
  const char* gates = nullptr;
  const char* experts = nullptr;
  const char* softmax = nullptr;
};

LossNeeds loss_needs(const ModelConfig& model) {
  const bool has_moa = model.attention.kind == AttentionKind::kMoa;
  const bool has_gates =
      model.has_ffn_experts() && model.ffn.router_activation() == RouterActivation::kSigmoid;
  const bool has_softmax_ffn = model.has_ffn_experts() && !has_gates;
  LossNeeds needs;
  if (!has_softmax_ffn) needs.softmax_ffn = "model.ffn.kind: moe";
  if (!has_moa) needs.moa = "model.attention.kind: moa";
  if (!has_gates) needs.gates = "model.ffn.kind: partitioned with model.partition.gates: sigmoid";
  if (!has_moa && !model.has_ffn_experts()) {
    needs.experts = "model.ffn.kind: moe or model.attention.kind: moa";
  }
  if (!has_moa && !has_softmax_ffn) {
    needs.softmax = "model.ffn.kind: moe or model.attention.kind: moa";
  }
  return needs;
}

void describe_loss(ConfigVisitor& v, LossConfig& config, const LossNeeds& needs) {
  v.begin_section("loss", "terms added to the language-model loss");
  v.real(
      "moe_mi_weight",
      config.moe_mi_weight,
      0.0,
      1e3,
      {.doc = "mutual-information loss of the FFN routers with softmax, summed over layers; 0 is "
              "off",
       .resume = kApplied,
       .needs = needs.softmax_ffn});
  v.real("moa_mi_weight",
         config.moa_mi_weight,
         0.0,
         1e3,
         {.doc = "mutual-information loss of the attention routers, summed over layers; 0 is off",
          .resume = kApplied,
          .needs = needs.moa});
  choice(v,
         "mi_scope",
         config.mi_scope,
         {{"local", MiScope::kLocal}, {"global", MiScope::kGlobal}},
         {.doc = "tokens of one mean distribution: a micro-batch, or the accumulated batch (exact; "
                 "needs a first forward pass without gradients when accumulation > 1)",
          .resume = kApplied});
  v.real("sparsity_weight",
         config.sparsity_weight,
         0.0,
         1e3,
         {.doc = "mean open gate of partitioned FFN experts, over tokens, experts and layers; 0 is "
                 "off",
          .resume = kApplied,
          .needs = needs.gates});
  v.real(
      "switch_weight",
      config.switch_weight,
      0.0,
      1e3,
      {.doc = "switch balance loss, for sparse training, summed over layers and both kinds; 0 is "
              "off",
       .resume = kApplied,
       .needs = needs.experts});
  v.real("z_weight",
         config.z_weight,
         0.0,
         1e3,
         {.doc = "z-loss of routers with softmax, summed over layers and both kinds; 0 is off",
          .resume = kApplied,
          .needs = needs.softmax});
  v.end_section();
}

void describe_guard(ConfigVisitor& v, GuardConfig& config) {
  v.begin_section("guard", "what a bad step may do, and alarms");
  choice(v,
         "on_non_finite",
         config.on_non_finite,
         {{"stop", OnNonFinite::kStop}, {"skip", OnNonFinite::kSkip}},
         {.doc = "action on a NaN or Inf in loss or gradient: stop before the weights change, or "
                 "skip the step's update",
          .resume = kApplied});
  choice(v,
         "on_spike",
         config.on_spike,
         {{"report", OnSpike::kReport}, {"skip", OnSpike::kSkip}},
         {.doc = "action on a spike of loss or gradient norm: report it, or report it and skip the "
                 "step's update",
          .resume = kApplied});
  v.real("spike_z",
         config.spike_z,
         0.0,
         1e6,
         {.doc = "standard deviations above the window's mean beyond which a loss or gradient norm "
                 "is a spike; 0 is off",
          .resume = kApplied});
  v.integer("spike_window",
            config.spike_window,
            2,
            1 << 16,
            {.doc = "number of finite steps that a step is compared with; no step is a spike "
                    "before the window is full",
             .unit = "steps",
             .resume = kApplied});
  v.integer("max_skips",
            config.max_skips,
            1,
            kMany,
            {.doc = "number of consecutive skipped updates that stops the run",
             .unit = "steps",
             .resume = kApplied});
  v.integer("dead_expert_steps",
            config.dead_expert_steps,
            0,
            kMany,
            {.doc = "alarm for an expert without load for this many steps of this process; load: "
                    "tokens that select the expert or, if all experts are selected, tokens that "
                    "give it at least 1/n_experts; 0 is off",
             .unit = "steps",
             .resume = kFree});
  v.real("collapse_entropy",
         config.collapse_entropy,
         0.0,
         1.0,
         {.doc = "router-collapse alarm, checked on logged steps for routers with softmax: entropy "
                 "of the mean routing distribution below this share of log(n_experts); 0 is off",
          .resume = kFree});
  v.end_section();
}

void describe_distributed(ConfigVisitor& v, DistributedConfig& config) {
  v.begin_section("distributed", "ranks of one job; without effect on one rank");
  choice(
      v,
      "shard",
      config.shard,
      {{"none", ShardLevel::kNone},
       {"optimizer", ShardLevel::kOptimizer},
       {"gradients", ShardLevel::kGradients}},
      {.doc = "what each rank keeps a share of instead of the whole: float32 weights and moments "
              "(ZeRO-1), or gradients too (ZeRO-2); products read whole working weights in the "
              "compute dtype",
       .resume = kApplied});
  v.boolean("shard_optimizer",
            config.shard_optimizer,
            {.doc = "each rank keeps and applies its share of the moments (ZeRO-1); gradients and "
                    "weights are whole on every rank",
             .resume = kFree});
  v.real("setup_timeout",
         config.setup_timeout,
         1,
         86400,
         {.doc = "limit of the rendezvous of the ranks", .unit = "seconds", .resume = kFree});
  v.real(
      "step_timeout",
      config.step_timeout,
      1,
      86400,
      {.doc = "collective timeout; must exceed the longest stall of any rank, a save for example",
       .unit = "seconds",
       .resume = kFree});
  v.integer(
      "bucket_mebibytes",
      config.bucket_mebibytes,
      1,
      1 << 16,
      {.doc = "size of one all-reduce of gradients; all-reduces overlap with the backward pass",
       .unit = "MiB",
       .resume = kFree});
  v.boolean("compress_gradients",
            config.compress_gradients,
            {.doc = "all-reduce gradients in bfloat16, which rounds; ranks stay bit-identical",
             .resume = kApplied});
  v.boolean("debug",
            config.debug,
            {.doc = "compare every collective across ranks before it begins and name those that "
                    "differ; slow, for debugging",
             .resume = kFree});
  v.integer("check_every",
            config.check_every,
            0,
            kMany,
            {.doc = "steps between checks: ranks compare a hash of every parameter and stop if one "
                    "differs; 0: never",
             .unit = "steps",
             .resume = kFree});
  v.end_section();
}

void describe_train(ConfigVisitor& v, TrainConfig& config, const ModelConfig& model) {
  v.begin_section("train", "training");
  v.integer("steps",
            config.steps,
            1,
            kMany,
            {.doc = "optimizer steps of the whole run", .unit = "steps", .resume = kApplied});
  v.integer("tokens",
            config.tokens,
            0,
            kManyTokens,
            {.doc = "instead of steps: tokens of the whole run, rounded up to a step; 0: steps",
             .unit = "tokens",
             .resume = kFree});
  v.real("epochs",
         config.epochs,
         0.0,
         1e6,
         {.doc = "instead of steps: passes over the tokens of data.train together, rounded up to a "
                 "step; 0: steps",
          .resume = kFree});
  v.integer("batch_size",
            config.batch_size,
            1,
            1 << 20,
            {.doc = "sequences per micro-batch", .unit = "sequences"});
  v.integer("accumulation",
            config.accumulation,
            1,
            1 << 20,
            {.doc = "micro-batches per optimizer step, divided evenly among the ranks of a job"});
  v.integer("batch_tokens",
            config.batch_tokens,
            0,
            kManyTokens,
            {.doc = "instead of accumulation: tokens per optimizer step, rounded to the nearest "
                    "number of micro-batches; 0: accumulation",
             .unit = "tokens",
             .resume = kFree});
  v.integer("batch_sequences",
            config.batch_sequences,
            0,
            kMany,
            {.doc = "instead of accumulation: sequences per optimizer step, a multiple of "
                    "batch_size; 0: accumulation",
             .unit = "sequences",
             .resume = kFree});
  choice(v,
         "compute_dtype",
         config.compute_dtype,
         {{"auto", ComputeDtype::kAuto},
          {"float32", ComputeDtype::kFloat32},
          {"bfloat16", ComputeDtype::kBfloat16}},
         {.doc = "number type of matrix products; weights stay float32; auto: bfloat16 on a GPU "
                 "and on a CPU with AVX512-BF16, else float32"});
  v.boolean("fast_float32",
            config.fast_float32,
            {.doc = "compute float32 products with oneDNN, about twice as fast as MKL on AMD CPUs; "
                    "no effect on a CPU with AMX, because oneDNN would round there"});
  choice(v,
         "checkpoint_activations",
         config.checkpoint_activations,
         {{"none", Recompute::kNone},
          {"selective", Recompute::kAttention},
          {"full", Recompute::kBlock}},
         {.doc = "activations that the backward pass recomputes: none, those of the attention half "
                 "of every block, or those of whole blocks",
          .resume = kApplied});
  v.path("init_from",
         config.init_from,
         {.doc = "checkpoint or run that provides the initial weights; empty: random weights. Keys "
                 "that change the model's function are copied from it if this config leaves them "
                 "out; a contradicting key is refused",
          .resume = kFree});
  v.text_list("init_override",
              config.init_override,
              {.doc = "model keys, such as model.rope_theta, that may differ from those of "
                      "init_from; tokenizer allows data of another tokenizer",
               .resume = kFree});
  v.integer("log_every",
            config.log_every,
            1,
            kMany,
            {.doc = "steps between log lines; the last step is logged too",
             .unit = "steps",
             .resume = kFree});
  v.integer("validate_every",
            config.validate_every,
            0,
            kMany,
            {.doc = "steps between validations; the last step is validated too; 0: never",
             .unit = "steps",
             .resume = kFree});
  v.text_list("validate_policies",
              config.validate_policies,
              {.doc = "policies under which each validation scores its text, such as [all, "
                      "threshold=0.48, top_k=4]; keep_best and the validation loss go by the "
                      "first; empty: the training selection",
               .resume = kApplied});
  v.integer(
      "save_every",
      config.save_every,
      0,
      kMany,
      {.doc =
           "steps between checkpoints; the end of the run and a stop save one too; 0: only these",
       .unit = "steps",
       .resume = kFree});
  v.integer("keep_checkpoints",
            config.keep_checkpoints,
            1,
            kMany,
            {.doc = "number of newest checkpoints that are kept", .resume = kFree});
  v.integer("keep_every",
            config.keep_every,
            0,
            kMany,
            {.doc = "checkpoints of steps divisible by this number are never removed; 0: none",
             .unit = "steps",
             .resume = kFree});
  v.boolean("keep_best",
            config.keep_best,
            {.doc = "also keep the checkpoint with the lowest validation loss among those of "
                    "validated steps",
             .resume = kFree});
  choice(v,
         "on_save_failure",
         config.on_save_failure,
         {{"stop", OnSaveFailure::kStop}, {"continue", OnSaveFailure::kContinue}},
         {.doc = "action when a checkpoint cannot be written: stop the run, or log the failure and "
                 "try again at the next save; the last save must succeed",
          .resume = kFree});
  v.integer("trace_steps",
            config.trace_steps,
            0,
            1000,
            {.doc = "steps per start, after the first two, that are traced to run_dir as a Chrome "
                    "trace; 0: none; SIGUSR1 traces one step",
             .unit = "steps",
             .resume = kFree});
  describe_schedule(v, config.schedule);
  describe_optimizer(v, config.optimizer);
  describe_loss(v, config.loss, loss_needs(model));
  describe_guard(v, config.guard);
  v.end_section();
}

}  // namespace

ScheduleConfig TrainConfig::schedule_of_run() const {
  ScheduleConfig config = schedule;
  config.total_steps = steps;
  return config;
}

int64_t RunConfig::seq_len() const { return data.seq_len > 0 ? data.seq_len : model.max_seq_len; }

void RunConfig::validate() const {
  model.validate();
  if (run_dir.empty()) throw Error("run_dir: expected a directory, got none");
  if (data.train.empty()) {
    throw Error("data.train: expected a directory of token shards, got none; run 'dsmoe tokenize'");
  }
  if (!data.weights.empty() && data.weights.size() != data.train.size()) {
    throw Error(
        fmt::format("data.weights: expected one for each of the {} entries of data.train, "
                    "got {}",
                    data.train.size(),
                    data.weights.size()));
  }
  if (seq_len() > model.max_seq_len) {
    throw Error(fmt::format(
        "data.seq_len = {} is above model.max_seq_len = {}", data.seq_len, model.max_seq_len));
  }
  if (train.has_units()) return;  // resolve_units gives the steps
  if (train.schedule.kind == ScheduleKind::kWsd &&
      train.schedule.warmup_steps + train.schedule.decay_steps > train.steps) {
    throw Error(fmt::format(
        "train.schedule: warmup_steps = {} and decay_steps = {} together pass train.steps = {}",
        train.schedule.warmup_steps,
        train.schedule.decay_steps,
        train.steps));
  }
  if (distributed.shard != ShardLevel::kNone && distributed.shard_optimizer) {
    throw Error("distributed.shard_optimizer: expected false beside distributed.shard, got true");
  }
  if (distributed.shard != ShardLevel::kNone && distributed.compress_gradients) {
    throw Error(
        "distributed.compress_gradients: expected false beside distributed.shard, got true");
  }
  validation_policies(*this);
  if (train.schedule.warmup_steps > train.steps) {
    throw Error(fmt::format("train.schedule.warmup_steps = {} is above train.steps = {}",
                            train.schedule.warmup_steps,
                            train.steps));
  }
}

void describe(ConfigVisitor& v, RunConfig& config) {
  v.path(
      "run_dir", config.run_dir, {.doc = "directory for checkpoints and metrics", .resume = kFree});
  v.integer("seed", config.seed, 0, kMany, {.doc = "seed of weights, data order and dropout"});
  v.integer("threads",
            config.threads,
            0,
            4096,
            {.doc = "CPU threads; 0: OMP_NUM_THREADS, else all cores, divided among the ranks of a "
                    "host; results are bit-identical only for the same number",
             .resume = kApplied});
  choice(v,
         "device",
         config.device,
         {{"cpu", DeviceKind::kCpu}, {"cuda", DeviceKind::kCuda}, {"auto", DeviceKind::kAuto}},
         {.doc = "device of the model; cuda needs a build of the cuda preset and has not been run "
                 "on hardware; auto selects cuda if there is a GPU. Each rank uses the GPU that "
                 "has the rank's number on its host",
          .resume = kApplied});
  describe(v, config.model);
  describe_data(v, config.data);
  describe_train(v, config.train, config.model);
  describe_distributed(v, config.distributed);
}

std::vector<ValidationPolicy> validation_policies(const RunConfig& config) {
  const auto& model = config.model;
  if (config.train.validate_policies.empty()) {
    return {{.name = model.training_policy, .plan = training_plan(model)}};
  }
  std::vector<ValidationPolicy> policies;
  for (const auto& name : config.train.validate_policies) {
    for (const auto& other : policies) {
      if (other.name == name) {
        throw Error(fmt::format("train.validate_policies: '{}' is there twice", name));
      }
    }
    try {
      auto plan = name == model.training_policy ? training_plan(model) : parse_routing_plan(name);
      plan.validate(static_cast<size_t>(model.n_layers),
                    model.attention.kind == AttentionKind::kMoa ? model.attention.n_experts : 0,
                    model.has_ffn_experts() ? model.ffn.n_experts : 0);
      policies.push_back({.name = name, .plan = std::move(plan)});
    } catch (const Error& error) {
      throw Error(fmt::format("train.validate_policies: {}", error.what()));
    }
  }
  return policies;
}

RoutingPlan training_plan(const ModelConfig& config) {
  const auto plan = parse_routing_plan(config.training_policy);
  const bool straight_through =
      config.ffn.kind == FfnKind::kPartitioned && config.ffn.partition.straight_through;
  std::vector<LayerRouting> layers;
  for (size_t i = 0; i < static_cast<size_t>(config.n_layers); ++i) {
    auto& layer = layers.emplace_back(plan.layer(i));
    for (auto* policy : {&layer.moa, &layer.moe}) {
      if (policy->selection != Selection::kAll) policy->execution = Execution::kSparse;
    }
    if (straight_through) layer.moe.execution = Execution::kDense;
  }
  return RoutingPlan(std::move(layers));
}

}  // namespace dsmoe
