#include "train/train_config.h"

#include <fmt/format.h>

#include "common/config_visitor.h"
#include "common/error.h"

namespace dsmoe {
namespace {

constexpr int64_t kMany = int64_t{1} << 40;
constexpr auto kApplied = ResumeRule::kApplied;
constexpr auto kFree = ResumeRule::kFree;

void describe_data(ConfigVisitor& v, DataConfig& config) {
  v.begin_section("data", "tokens");
  v.path_list(
      "train",
      config.train,
      {.doc = "directories made by dsmoe tokenize, or Megatron pairs (the path without .bin "
              "and .idx); one text is a list of one",
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
         {.doc = "key of the text where validation is a file of JSON lines; empty: text",
          .resume = kFree});
  v.text("separator",
         config.separator,
         {.doc = "stands between documents where validation is a file of plain text; empty: one "
                 "document",
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
            {.doc = "micro-batches made ahead by a thread; 0: none", .resume = kFree});
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
       .resume = kApplied});
  v.integer("warmup_steps",
            config.warmup_steps,
            0,
            kMany,
            {.doc = "linear rise: step n, counted from 1, takes peak * n / warmup_steps; 0 is off",
             .unit = "steps",
             .resume = kApplied});
  v.integer("decay_steps",
            config.decay_steps,
            0,
            kMany,
            {.doc = "wsd: length of the decay at the end, whose first step still has the peak; 0: "
                    "none",
             .unit = "steps",
             .resume = kApplied});
  choice(v,
         "decay_shape",
         config.decay_shape,
         {{"linear", DecayShape::kLinear}, {"one_minus_sqrt", DecayShape::kOneMinusSqrt}},
         {.doc = "wsd: share of the way from peak to final_ratio that n steps of decay have gone: "
                 "n / decay_steps, or its square root",
          .resume = kApplied});
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

void describe_loss(ConfigVisitor& v, LossConfig& config) {
  v.begin_section("loss", "terms added to the language-model loss");
  v.real(
      "moe_mi_weight",
      config.moe_mi_weight,
      0.0,
      1e3,
      {.doc = "mutual-information loss of the FFN routers with softmax, summed over layers; 0 is "
              "off",
       .resume = kApplied});
  v.real("moa_mi_weight",
         config.moa_mi_weight,
         0.0,
         1e3,
         {.doc = "mutual-information loss of the attention routers, summed over layers; 0 is off",
          .resume = kApplied});
  choice(v,
         "mi_scope",
         config.mi_scope,
         {{"local", MiScope::kLocal}, {"global", MiScope::kGlobal}},
         {.doc = "tokens of one mean distribution: a micro-batch, or the accumulated batch (exact, "
                 "at the price of a first forward pass without gradients when accumulation > 1)",
          .resume = kApplied});
  v.real("sparsity_weight",
         config.sparsity_weight,
         0.0,
         1e3,
         {.doc = "mean open gate of partitioned FFN experts, over tokens, experts and layers; 0 is "
                 "off",
          .resume = kApplied});
  v.real(
      "switch_weight",
      config.switch_weight,
      0.0,
      1e3,
      {.doc = "switch balance loss, for sparse training, summed over layers and both kinds; 0 is "
              "off",
       .resume = kApplied});
  v.real("z_weight",
         config.z_weight,
         0.0,
         1e3,
         {.doc = "z-loss of routers with softmax, summed over layers and both kinds; 0 is off",
          .resume = kApplied});
  v.end_section();
}

void describe_guard(ConfigVisitor& v, GuardConfig& config) {
  v.begin_section("guard", "what a bad step may do, and alarms");
  choice(
      v,
      "on_non_finite",
      config.on_non_finite,
      {{"stop", OnNonFinite::kStop}, {"skip", OnNonFinite::kSkip}},
      {.doc = "a NaN or Inf in loss or gradient: stop before the weights are touched, or drop the "
              "step's update",
       .resume = kApplied});
  choice(v,
         "on_spike",
         config.on_spike,
         {{"report", OnSpike::kReport}, {"skip", OnSpike::kSkip}},
         {.doc = "a spike of loss or gradient norm: say so, or drop the step's update too",
          .resume = kApplied});
  v.real("spike_z",
         config.spike_z,
         0.0,
         1e6,
         {.doc = "standard deviations above the window's mean beyond which a loss or gradient norm "
                 "is a spike; 0 is off",
          .resume = kApplied});
  v.integer(
      "spike_window",
      config.spike_window,
      2,
      1 << 16,
      {.doc = "finite steps that a step is compared with; none is a spike before there are so many",
       .unit = "steps",
       .resume = kApplied});
  v.integer(
      "max_skips",
      config.max_skips,
      1,
      kMany,
      {.doc = "dropped updates in a row that stop the run", .unit = "steps", .resume = kApplied});
  v.integer("dead_expert_steps",
            config.dead_expert_steps,
            0,
            kMany,
            {.doc = "alarm for an expert without load for so many steps of this process; load: "
                    "tokens that select it, where all are selected those that give it at least "
                    "1/n_experts; 0 is off",
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
  v.integer("bucket_mebibytes",
            config.bucket_mebibytes,
            1,
            1 << 16,
            {.doc = "gradients per all-reduce, which overlaps with the backward pass",
             .unit = "MiB",
             .resume = kFree});
  v.boolean("compress_gradients",
            config.compress_gradients,
            {.doc = "all-reduce gradients in bfloat16, which rounds; ranks stay bit-identical",
             .resume = kApplied});
  v.boolean(
      "debug",
      config.debug,
      {.doc = "compare every collective across ranks before it begins and name those that differ; "
              "slow, for finding a fault",
       .resume = kFree});
  v.integer("check_every",
            config.check_every,
            0,
            kMany,
            {.doc = "ranks compare a hash of every parameter, and stop where one differs; 0: never",
             .unit = "steps",
             .resume = kFree});
  v.end_section();
}

void describe_train(ConfigVisitor& v, TrainConfig& config) {
  v.begin_section("train", "training");
  v.integer("steps",
            config.steps,
            1,
            kMany,
            {.doc = "optimizer steps of the whole run", .unit = "steps", .resume = kApplied});
  v.integer(
      "batch_size", config.batch_size, 1, 1 << 20, {.doc = "per micro-batch", .unit = "sequences"});
  v.integer("accumulation",
            config.accumulation,
            1,
            1 << 20,
            {.doc = "micro-batches per optimizer step, which the ranks of a job share evenly"});
  choice(
      v,
      "compute_dtype",
      config.compute_dtype,
      {{"auto", ComputeDtype::kAuto},
       {"float32", ComputeDtype::kFloat32},
       {"bfloat16", ComputeDtype::kBfloat16}},
      {.doc = "of matrix products, over float32 weights; auto: bfloat16 on a GPU and where the CPU "
              "has AVX512-BF16, else float32"});
  v.boolean("fast_float32",
            config.fast_float32,
            {.doc = "float32 products by oneDNN, about twice as fast as MKL on AMD CPUs; no effect "
                    "where the CPU has AMX, which would round them"});
  choice(
      v,
      "checkpoint_activations",
      config.checkpoint_activations,
      {{"none", Recompute::kNone},
       {"selective", Recompute::kAttention},
       {"full", Recompute::kBlock}},
      {.doc = "compute again in the backward pass instead of keeping: nothing, the attention half "
              "of every block, or whole blocks",
       .resume = kApplied});
  v.path("init_from",
         config.init_from,
         {.doc = "checkpoint or run whose weights start the run; empty: random. What changes the "
                 "model's function is taken over from it where this config is silent, and refused "
                 "where it contradicts",
          .resume = kFree});
  v.text_list("init_override",
              config.init_override,
              {.doc = "keys of the model, as model.rope_theta, whose value here is meant to differ "
                      "from that of init_from, and tokenizer for data of another tokenizer",
               .resume = kFree});
  v.integer(
      "log_every",
      config.log_every,
      1,
      kMany,
      {.doc = "between log lines; the last step has one too", .unit = "steps", .resume = kFree});
  v.integer(
      "validate_every",
      config.validate_every,
      0,
      kMany,
      {.doc = "between validations, and at the end; 0: never", .unit = "steps", .resume = kFree});
  v.integer("save_every",
            config.save_every,
            0,
            kMany,
            {.doc = "between checkpoints, and at the end or a stop; 0: at these only",
             .unit = "steps",
             .resume = kFree});
  v.integer("keep_checkpoints",
            config.keep_checkpoints,
            1,
            kMany,
            {.doc = "newest ones kept", .resume = kFree});
  v.integer("keep_every",
            config.keep_every,
            0,
            kMany,
            {.doc = "checkpoints of steps divisible by it stay for ever; 0: none",
             .unit = "steps",
             .resume = kFree});
  v.boolean("keep_best",
            config.keep_best,
            {.doc = "of the checkpoints whose step was validated, the one of the lowest validation "
                    "loss stays too",
             .resume = kFree});
  choice(
      v,
      "on_save_failure",
      config.on_save_failure,
      {{"stop", OnSaveFailure::kStop}, {"continue", OnSaveFailure::kContinue}},
      {.doc = "when a checkpoint cannot be written: stop the run, or say so and try again when the "
              "next one is due; the last one must succeed",
       .resume = kFree});
  v.integer("trace_steps",
            config.trace_steps,
            0,
            1000,
            {.doc = "steps of each start, after the first two, whose operators are written to "
                    "run_dir as a Chrome trace; 0: none, unless SIGUSR1 asks for one step",
             .unit = "steps",
             .resume = kFree});
  describe_schedule(v, config.schedule);
  describe_optimizer(v, config.optimizer);
  describe_loss(v, config.loss);
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
  if (train.schedule.kind == ScheduleKind::kWsd &&
      train.schedule.warmup_steps + train.schedule.decay_steps > train.steps) {
    throw Error(fmt::format(
        "train.schedule: warmup_steps = {} and decay_steps = {} together pass train.steps = {}",
        train.schedule.warmup_steps,
        train.schedule.decay_steps,
        train.steps));
  }
  if (train.schedule.warmup_steps > train.steps) {
    throw Error(fmt::format("train.schedule.warmup_steps = {} is above train.steps = {}",
                            train.schedule.warmup_steps,
                            train.steps));
  }
}

void describe(ConfigVisitor& v, RunConfig& config) {
  v.path("run_dir", config.run_dir, {.doc = "where checkpoints and metrics go", .resume = kFree});
  v.integer("seed", config.seed, 0, kMany, {.doc = "of weights, data order and dropout"});
  v.integer("threads",
            config.threads,
            0,
            4096,
            {.doc = "0: OMP_NUM_THREADS, else all cores; of several ranks on a host each takes its "
                    "share of the cores; results are the same bits only for the same number",
             .resume = kApplied});
  choice(
      v,
      "device",
      config.device,
      {{"cpu", DeviceKind::kCpu}, {"cuda", DeviceKind::kCuda}, {"auto", DeviceKind::kAuto}},
      {.doc = "where the model is; cuda needs a build of the cuda preset and has not been run on "
              "hardware, auto takes it where there is a GPU. A rank takes the GPU of its number "
              "on its host",
       .resume = kApplied});
  describe(v, config.model);
  describe_data(v, config.data);
  describe_train(v, config.train);
  describe_distributed(v, config.distributed);
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
