#include "infer/infer_bench.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randint.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "common/memory_bandwidth.h"
#include "infer/decode_steps.h"

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kUntimedSteps = 3;  // of a device: one eager, one recorded, one replayed

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One model, one kind of pass, tokens from a seed.
class Bench {
 public:
  Bench(Transformer& model, const InferBenchOptions& options)
      : model_(model), options_(options), random_(at::detail::createCPUGenerator(1)) {}

  double time_prefill() {
    auto cache = filled_cache(options_.prompt);
    const auto tokens = random_tokens(options_.prompt);
    wait();
    const auto start = Clock::now();
    pass(tokens, cache);
    wait();
    return seconds_since(start);
  }

  double time_decode(ExpertUsage& usage) {
    const bool on_cpu = model_->device().is_cpu();
    const int64_t untimed = on_cpu ? 0 : kUntimedSteps;
    auto cache = filled_cache(options_.generate + untimed);
    DecodeSteps steps(model_, options_.plan, options_.compute_dtype);
    std::vector<std::vector<int64_t>> tokens;
    for (int64_t i = 0; i < options_.generate + untimed; ++i) tokens.push_back(random_ids());
    auto next = tokens.begin();
    for (int64_t i = 0; i < untimed; ++i) steps.run(*next++, cache);
    wait();
    const auto start = Clock::now();
    std::vector<ModelOutput> outputs;
    while (next != tokens.end()) {
      const auto& output = steps.run(*next++, cache);
      // A device writes the next step's over it: there the last one's use of experts is known.
      if (on_cpu || next == tokens.end()) outputs.push_back(output);
    }
    wait();
    const double seconds = seconds_since(start);
    for (const auto& output : outputs) usage.add(output);
    return seconds;
  }

 private:
  at::Tensor random_tokens(int64_t n) {
    return at::randint(
        0, model_->config().vocab_size, {options_.batch, n}, random_, at::TensorOptions(at::kLong));
  }

  std::vector<int64_t> random_ids() {
    const auto tokens = random_tokens(1);
    const auto* ids = tokens.const_data_ptr<int64_t>();
    return {ids, ids + options_.batch};
  }

  void wait() {
    if (options_.wait) options_.wait();
  }

  // Holds `depth` tokens; n more fit.
  KvCache filled_cache(int64_t n) {
    auto cache = model_->make_cache(options_.batch, options_.depth + n, options_.compute_dtype);
    if (options_.depth > 0) pass(random_tokens(options_.depth), cache);
    return cache;
  }

  ModelOutput pass(const at::Tensor& tokens, KvCache& cache) {
    const int64_t n = tokens.size(1);
    const auto last = std::vector<int64_t>(static_cast<size_t>(options_.batch), n - 1);
    auto output = model_->forward(
        tokens.to(model_->device()),
        options_.plan,
        {.compute_dtype = options_.compute_dtype, .cache = &cache, .logits_at = last});
    cache.advance(n);
    return output;
  }

  Transformer& model_;
  const InferBenchOptions& options_;
  at::Generator random_;
};

}  // namespace

double InferBenchResult::least_decode_seconds() const {
  double least = std::numeric_limits<double>::infinity();
  for (const auto& round : rounds) least = std::min(least, round.decode_seconds);
  return least;
}

InferBenchResult run_infer_bench(Transformer& model, const InferBenchOptions& options) {
  const at::NoGradGuard no_grad;
  model->eval();
  Bench bench(model, options);
  InferBenchResult result;
  ExpertUsage usage;
  const auto bandwidth = [&] { return options.measure_bandwidth ? measure_read_bandwidth() : 0.0; };
  for (int64_t i = -options.warmup; i < options.repetitions; ++i) {
    InferBenchRound round;
    if (options.prompt > 0) round.prefill_seconds = bench.time_prefill();
    round.bandwidth_before = bandwidth();
    if (options.generate > 0) round.decode_seconds = bench.time_decode(usage);
    round.bandwidth_after = bandwidth();
    if (i >= 0) result.rounds.push_back(round);
  }
  if (options.measure_bandwidth) release_bandwidth_memory();
  result.active = options.generate > 0 ? usage.active_experts() : all_experts(model->config());
  return result;
}

double weight_bytes_per_token(const ModelConfig& config,
                              PackedFormat format,
                              const ActiveExperts& active) {
  constexpr double kInt8Bytes = 1.0 + 4.0 / static_cast<double>(kQuantBlock);
  const double bytes = format == PackedFormat::kFloat32    ? 4.0
                       : format == PackedFormat::kBfloat16 ? 2.0
                                                           : kInt8Bytes;
  const auto count = count_parameters(config);
  const auto rest = static_cast<double>(count.non_embedding() - count.matrices);
  const double matrices = active_parameters(config, active) - rest +
                          static_cast<double>(config.vocab_size * config.d_model);
  return matrices * bytes + rest * 4.0;
}

}  // namespace dsmoe
