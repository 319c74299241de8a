// What a run prints and writes, on one rank and on two.
#include "train/train_metrics.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/rank_threads.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

constexpr int64_t kMetricsSteps = 3;
constexpr size_t kTimeWidth = 9;  // in front of each line

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

// Names and sum of the terms of a row of the log.
struct Printed {
  double loss = 0;
  double sum = 0;
  std::vector<std::string> names = {};
  std::vector<double> shares = {};  // percent, of the terms with a bound
};

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}

Printed parse_row(const LogTable& table, const StepMetrics& metrics) {
  Printed printed;
  const auto row = words_of(table.row(metrics));
  size_t at = 1;  // behind the step
  const auto columns = words_of(table.heading());
  for (size_t i = 1; columns.at(i) != "loss"; ++i) {
    const auto found = std::find_if(metrics.loss_terms.begin(),
                                    metrics.loss_terms.end(),
                                    [&](const auto& term) { return term.name == columns[i]; });
    REQUIRE(found != metrics.loss_terms.end());
    printed.names.push_back(columns[i]);
    if (found->weight != 0) printed.sum += std::stod(row.at(at++));
    if (found->bound == 0) continue;
    CHECK(row.at(at).back() == '%');
    printed.shares.push_back(std::stod(row.at(at++)));
  }
  printed.loss = std::stod(row.at(at));
  return printed;
}

std::vector<nlohmann::json> lines_of(const std::string& run_dir) {
  std::istringstream text(read_file(posix_io(), run_dir + "/metrics.jsonl", 1 << 20));
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

TEST_CASE("LogTable: the terms shown add up to the loss shown, shares are of the bound",
          "[train][losses]") {
  const auto& [name, change, terms] = cases()[static_cast<size_t>(GENERATE(range(0, 5)))];
  const int64_t n_ranks = GENERATE(1, 2);
  CAPTURE(name, n_ranks);
  const TemporaryDirectory directory;
  auto config = tiny_run(directory.file("run"), metrics_shards());
  config.train.steps = kMetricsSteps;
  change(config);
  train_with_metrics(config, n_ranks);
  int64_t n_steps = 0;
  for (const auto& json : lines_of(config.run_dir)) {
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
    const LogTable table(*metrics, kMetricsSteps);
    CHECK(kTimeWidth + table.row(*metrics).size() <= 100);
    const auto printed = parse_row(table, *metrics);
    CHECK(printed.names == terms);
    // Half of the last digit of the loss and of each weighted term.
    CHECK(std::abs(printed.sum - printed.loss) <= 0.0005 * static_cast<double>(terms.size() + 1));
    size_t i = 0;
    for (const auto& term : metrics->loss_terms) {
      if (term.name != "moe_mi" && term.name != "moa_mi") continue;
      const double n_experts = term.name == "moe_mi" ? 4 : 3;
      CHECK(term.bound == Approx(-2 * std::log(n_experts)));  // of two layers
      CHECK(printed.shares.at(i++) == Approx(-50 * term.value / std::log(n_experts)).margin(0.51));
    }
    CHECK(i == printed.shares.size());
  }
  CHECK(n_steps == kMetricsSteps);
}

// The quick start, in the middle of its training.
StepMetrics quick_start_metrics() {
  StepMetrics metrics;
  metrics.step = 1200;
  metrics.tokens = 1200 * 2048;
  metrics.loss = 3.3361;
  metrics.loss_terms = {{.name = "lm", .value = 3.4051},
                        {.name = "moe_mi", .value = -6.78, .weight = 1e-2, .bound = -11.0904},
                        {.name = "moa_mi", .value = -1.2, .weight = 1e-3, .bound = -5.5452}};
  metrics.learning_rate = 2.9e-4;
  metrics.gradient_norm = 0.84;
  metrics.tokens_per_second = 5214;
  metrics.flops_per_second = 31.2e9;
  metrics.peak_memory_bytes = int64_t{1} << 29;
  return metrics;
}

TEST_CASE("LogTable: lm comes first, then each term and its share, then the total",
          "[train][losses]") {
  const auto metrics = quick_start_metrics();
  const LogTable table(metrics, 2000);
  CHECK(table.heading() ==
        "     step      lm       moe_mi       moa_mi    loss       lr   grad  tok/s  FLOP/s      "
        "eta");
  CHECK(table.row(metrics) ==
        "1200/2000   3.405  -0.068  61%  -0.001  22%   3.336  2.9e-04   0.84   5214   31.2G   5m "
        "14s");
  CHECK(kTimeWidth + table.row(metrics).size() <= 100);
  const auto legend = table.legend();
  REQUIRE(legend.size() == 3);
  CHECK(legend[0].find("lm + moe_mi + moa_mi = loss") == 0);
  for (const auto& line : legend) CHECK(kTimeWidth + line.size() <= 100);
}

TEST_CASE("LogTable: large numbers stay within 100 columns and below their headings",
          "[train][losses]") {
  auto metrics = quick_start_metrics();
  metrics.step = 999999;
  metrics.tokens = int64_t{999999} * 4'000'000;
  metrics.loss_terms[0].value = 10.826;
  metrics.loss_terms[1].weight = 0.5;
  metrics.gradient_norm = 54321.0;
  metrics.tokens_per_second = 7.6e6;
  metrics.flops_per_second = 4.5e16;
  metrics.mfu = 1.0;
  metrics.learning_rate = 0;
  const LogTable table(metrics, 10'000'000);
  CHECK(table.row(metrics).size() == table.heading().size());
  CHECK(kTimeWidth + table.row(metrics).size() <= 100);
  CHECK(table.heading().find("tok/s") != std::string::npos);
  CHECK(table.heading().find("eta") != std::string::npos);
}

TEST_CASE("LogTable: MFU has a column where a peak is known", "[train][losses]") {
  auto metrics = quick_start_metrics();
  metrics.loss_terms.resize(1);
  CHECK(LogTable(metrics, 2000).heading().find("mfu") == std::string::npos);
  metrics.mfu = 0.416;
  const LogTable table(metrics, 2000);
  CHECK(table.heading().find("mfu") != std::string::npos);
  CHECK(table.row(metrics).find(" 42% ") != std::string::npos);
  CHECK(table.legend().empty());  // one term: nothing to add
}

TEST_CASE("format_duration: shows the two largest units", "[train]") {
  CHECK(format_duration(0.4) == "0s");
  CHECK(format_duration(59.6) == "1m 00s");
  CHECK(format_duration(3599) == "59m 59s");
  CHECK(format_duration(3600 * 5 + 61) == "5h 01m");
  CHECK(format_duration(86400 * 2 + 3600) == "2d 1h");
}

RunConfig validated_run(const TemporaryDirectory& directory, const std::string& name) {
  auto config = tiny_run(directory.file(name), metrics_shards());
  config.train.steps = 4;
  config.train.schedule.warmup_steps = 2;
  config.train.validate_every = 2;
  config.train.save_every = 2;
  config.data.validation = metrics_shards();
  config.train.validate_policies = {"top_k=1", "all", "threshold=1.05"};
  return config;
}

TEST_CASE("Trainer: a validation scores every policy, and the first one's loss is the run's",
          "[train][validation]") {
  const TemporaryDirectory directory;
  const int64_t n_ranks = GENERATE(1, 2);
  CAPTURE(n_ranks);
  auto config = validated_run(directory, "run");
  train_with_metrics(config, n_ranks);
  std::vector<nlohmann::json> validations;
  for (const auto& line : lines_of(config.run_dir)) {
    if (line.contains("validation_loss")) validations.push_back(line);
  }
  REQUIRE(validations.size() == 2);
  const auto& policies = validations.back()["policies"];
  REQUIRE(policies.size() == 3);
  CHECK(policies[0]["policy"] == "top_k=1");
  CHECK(policies[0]["loss"] == validations.back()["validation_loss"]);
  CHECK(policies[0]["experts"]["moe"][0]["active"] == 1.0);
  CHECK(policies[0]["experts"]["moa"][0]["active"] == 3.0);  // bare top_k is of the FFNs
  CHECK(policies[1]["experts"]["moe"][1]["active"] == 4.0);
  CHECK(policies[1]["active_share"] == 1.0);
  CHECK(policies[1]["active_parameters"].get<double>() ==
        static_cast<double>(count_parameters(config.model).non_embedding()));
  CHECK(policies[0]["active_parameters"].get<double>() < policies[1]["active_parameters"]);
  CHECK(policies[0]["loss"] != policies[1]["loss"]);
  for (const auto& one : policies) {
    CHECK(one["perplexity"].get<double>() == Approx(std::exp(one["loss"].get<double>())));
    // One byte is one token here.
    CHECK(one["bits_per_byte"].get<double>() ==
          Approx(one["loss"].get<double>() / std::log(2.0)).epsilon(0.01));
  }
  // The run's loss, its best one among them, is that of the first policy.
  const auto result = Trainer(posix_io(), config, "auto").run();
  CHECK(result.validation_loss == validations.back()["validation_loss"].get<double>());
  CHECK(result.best_step == 4);
  CHECK(result.best_loss == validations.back()["validation_loss"].get<double>());
  REQUIRE(result.validations.size() == 3);  // read back: this process validated nothing
  CHECK(result.validations[2].policy == "threshold=1.05");
  CHECK(result.validations[2].loss == policies[2]["loss"].get<double>());
  CHECK(result.validations[1].active_share == 1.0);
}

TEST_CASE("Trainer: validations under several policies leave the training as it is",
          "[train][validation][resume]") {
  const TemporaryDirectory directory;
  const auto losses_of = [](const RunConfig& config) {
    std::vector<double> losses;
    for (const auto& line : lines_of(config.run_dir)) {
      if (line.contains("loss")) losses.push_back(line["loss"]);
    }
    return losses;
  };
  const auto several = validated_run(directory, "several");
  auto none = validated_run(directory, "none");
  none.train.validate_every = 0;
  Trainer(posix_io(), several, "none").run();
  Trainer(posix_io(), none, "none").run();
  CHECK(losses_of(several) == losses_of(none));
  auto halves = validated_run(directory, "halves");
  halves.train.steps = 2;
  Trainer(posix_io(), halves, "none").run();
  halves.train.steps = 4;
  Trainer(posix_io(), halves, "auto").run();
  CHECK(losses_of(halves) == losses_of(several));
  const auto last = [](const RunConfig& config) {
    return lines_of(config.run_dir).back()["policies"];
  };
  CHECK(last(halves) == last(several));
}

TEST_CASE("RunConfig: validation policies that do not fit the model are refused by their key",
          "[train][validation]") {
  const TemporaryDirectory directory;
  auto config = validated_run(directory, "run");
  CHECK_NOTHROW(config.validate());
  for (const auto& [policies, why] :
       {std::pair<std::vector<std::string>, std::string>{{"all", "top_k=5"}, "top_k"},
        {{"top-k=1"}, "top-k=1"},
        {{"all", "all"}, "'all' is there twice"}}) {
    config.train.validate_policies = policies;
    CHECK_THROWS_WITH(config.validate(),
                      Catch::StartsWith("train.validate_policies: ") && Catch::Contains(why));
  }
  config.train.validate_policies = {};
  const auto usual = validation_policies(config);
  REQUIRE(usual.size() == 1);
  CHECK(usual[0].name == config.model.training_policy);
  CHECK((usual[0].plan == training_plan(config.model)));
}

TEST_CASE("TrainMetrics: lines have the time of the clock, and wall seconds over all starts",
          "[train][metrics]") {
  const TemporaryDirectory directory;
  const auto run = directory.file("run");
  make_directories(posix_io(), run);
  double now = 1e9;  // 2001-09-09T01:46:40Z
  const auto clock = [&now] { return now; };
  auto metrics = quick_start_metrics();
  metrics.step = 1;
  {
    TrainMetrics writer(posix_io(), run, 0, 10, {}, clock);
    now += 2.5;
    writer.add(metrics);
    now += 60;
    writer.add_event(1, "alarm", "one");
    CHECK(writer.seconds() == Approx(62.5));
  }
  now += 3600;  // between two starts
  {
    TrainMetrics writer(posix_io(), run, 1, 10, {}, clock);
    now += 1;
    writer.add_event(2, "alarm", "two");
  }
  const auto lines = lines_of(run);
  REQUIRE(lines.size() == 3);
  CHECK(lines[0]["time"] == "2001-09-09T01:46:42Z");
  CHECK(lines[0]["seconds"] == 2.5);
  CHECK(lines[0]["flops_per_second"] == 31.2e9);
  CHECK(lines[0]["mfu"].is_null());
  CHECK(lines[1]["time"] == "2001-09-09T01:47:42Z");
  CHECK(lines[2]["time"] == "2001-09-09T02:47:43Z");
  CHECK(lines[2]["seconds"] == 63.5);
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
