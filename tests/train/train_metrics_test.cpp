// Printed losses, on one rank and on two: the printed terms times their printed weights add up to
// the printed loss.
#include "train/train_metrics.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>

#include "support/rank_threads.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

constexpr int64_t kMetricsSteps = 3;

const std::string& metrics_shards() {
  static const TemporaryDirectory directory;
  static const std::string made = make_tiny_shards(directory, 700);
  return made;
}

struct Case {
  std::string name;
  void (*change)(RunConfig& config);
  std::vector<std::string> terms;  // those that are shown
};

const std::vector<Case>& cases() {
  static const std::vector<Case> list = {
      {"defaults", [](RunConfig&) {}, {"lm", "moe_mi", "moa_mi"}},
      {"every weight, routers alike",
       [](RunConfig& config) {
         config.train.loss = {.moe_mi_weight = 0.7,
                              .moa_mi_weight = 12.5,
                              .mi_scope = MiScope::kGlobal,
                              .switch_weight = 0.25,
                              .z_weight = 3};
       },
       {"lm", "moe_mi", "moa_mi", "balance", "z"}},
      {"weights of zero",
       [](RunConfig& config) {
         config.train.loss.moe_mi_weight = 0;
         config.train.loss.moa_mi_weight = 0;
         config.model.training_policy = "top_k=2";
       },
       {"lm", "moe_mi", "moa_mi"}},
      {"partitioned",
       [](RunConfig& config) {
         config.model.ffn.kind = FfnKind::kPartitioned;
         config.model.ffn.d_ffn = config.model.ffn.n_experts * config.model.ffn.d_expert;
         config.model.ffn.router.kind = RouterKind::kLinear;
         config.model.training_policy = "moe:threshold=0.5;moa:all";
         config.train.loss.z_weight = 1e-3;
       },
       {"lm", "moa_mi", "sparsity", "z"}},
      {"dense",
       [](RunConfig& config) {
         config.model.attention.kind = AttentionKind::kDense;
         config.model.attention.n_heads = 3;
         config.model.attention.n_kv_heads = 3;
         config.model.ffn.kind = FfnKind::kDense;
         config.model.ffn.d_ffn = 20;
       },
       {"lm"}},
  };
  return list;
}

void train_with_metrics(const RunConfig& config, int64_t n_ranks) {
  if (n_ranks == 1) {
    Trainer(posix_io(), config, "none").run();
    return;
  }
  run_ranks(n_ranks, [&](RankGroup& group) {
    Trainer(
        posix_io(), config, "none", at::kCPU, std::shared_ptr<RankGroup>(&group, [](RankGroup*) {}))
        .run();
  });
}

// Names and weighted sum of the terms in `loss 3.412 (lm 3.405 moe_mi -0.61*0.0005) | ...`.
struct Printed {
  double loss = 0;
  double sum = 0;
  std::vector<std::string> names = {};
};

Printed parse_log_line(const std::string& line) {
  std::smatch found;
  REQUIRE(std::regex_search(line, found, std::regex(R"(\| loss (\S+) \(([^)]*)\) \|)")));
  Printed printed{.loss = std::stod(found[1])};
  std::istringstream terms(found[2]);
  for (std::string name, number; terms >> name >> number;) {
    const auto star = number.find('*');
    const double weight = star == number.npos ? 1.0 : std::stod(number.substr(star + 1));
    printed.names.push_back(name);
    printed.sum += weight * std::stod(number.substr(0, star));
  }
  return printed;
}

TEST_CASE("TrainMetrics: the terms shown, times their weights, add up to the loss shown",
          "[train][losses]") {
  const auto& [name, change, terms] = cases()[static_cast<size_t>(GENERATE(range(0, 5)))];
  const int64_t n_ranks = GENERATE(1, 2);
  CAPTURE(name, n_ranks);
  const TemporaryDirectory directory;
  auto config = tiny_run(directory.file("run"), metrics_shards());
  config.train.steps = kMetricsSteps;
  change(config);
  train_with_metrics(config, n_ranks);
  std::istringstream lines(read_file(posix_io(), config.run_dir + "/metrics.jsonl", 1 << 20));
  int64_t n_steps = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (!json.contains("loss")) continue;
    ++n_steps;
    double sum = 0;
    REQUIRE(json["loss_weights"].size() == terms.size());
    for (const auto& [key, weight] : json["loss_weights"].items()) {
      sum += weight.get<double>() * json.at(key).get<double>();
    }
    CHECK(sum == Approx(json["loss"].get<double>()).epsilon(1e-6));  // the loss is float32

    const auto metrics = read_step_metrics(posix_io(), config.run_dir, json["step"]);
    REQUIRE(metrics);
    const auto printed = parse_log_line(format_log_line(*metrics, kMetricsSteps));
    CHECK(printed.names == terms);
    // Half of the last digit of the loss and of each weighted term.
    CHECK(std::abs(printed.sum - printed.loss) <= 0.0005 * static_cast<double>(terms.size() + 1));
  }
  CHECK(n_steps == kMetricsSteps);
}

TEST_CASE("read_step_metrics: a line without weights gives NaN for them", "[train][losses]") {
  const TemporaryDirectory directory;
  const auto run = directory.file("run");
  make_directories(posix_io(), run);
  write_file(posix_io(),
             run + "/metrics.jsonl",
             "{\"step\": 2, \"loss\": 1.5, \"lm_loss\": 1.25, \"moe_mi\": -0.5}\n");
  const auto metrics = read_step_metrics(posix_io(), run, 2);
  REQUIRE(metrics);
  REQUIRE(metrics->loss_terms.size() == 2);
  CHECK(metrics->loss_terms[1].name == "moe_mi");
  CHECK(metrics->loss_terms[1].value == -0.5);
  CHECK(std::isnan(metrics->loss_terms[1].weight));
}

}  // namespace
}  // namespace dsmoe
