#include "report/starter_config.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "common/config_reader.h"
#include "common/error.h"
#include "train/config_file.h"

namespace dsmoe {
namespace {

const std::vector<std::string> kStyles{"ds-moe", "dense", "smoe", "partition"};

StarterConfig make(const std::string& style, int64_t parameters, int64_t tokens) {
  StarterRequest request;
  request.style = parse_starter_style(style);
  request.parameters = parameters;
  request.tokens = tokens;
  return make_starter_config(request, "made.yaml");
}

TEST_CASE("init: parameters are within 5 % of those asked for, from 1M to 7B", "[report][init]") {
  for (const auto& style : kStyles) {
    for (double wanted = 1e6; wanted < 7.1e9; wanted *= 1.3) {
      const auto made = make(style, static_cast<int64_t>(wanted), int64_t{20'000'000'000});
      CAPTURE(style, wanted, made.yaml);
      CHECK(static_cast<double>(made.parameters.total()) == Approx(wanted).epsilon(0.05));
    }
  }
}

TEST_CASE("init: the reader reads the file without notes to the planned model", "[report][init]") {
  for (const auto& style : kStyles) {
    for (const int64_t wanted : {1'000'000, 20'000'000, 350'000'000}) {
      const auto made = make(style, wanted, 400'000'000);
      CAPTURE(made.yaml);
      RunConfig config;
      const auto given = read_run_config_text(made.yaml, "made.yaml", {}, config);
      CHECK(given.notes.empty());
      CHECK_NOTHROW(check_used_keys(config, given));
      CHECK(count_parameters(config.model).total() == made.parameters.total());
      CHECK_FALSE(resolve_units(config, std::nullopt).empty());
      CHECK_NOTHROW(config.validate());
      CHECK(config.train.steps == made.config.train.steps);
      CHECK(made.tokens >= 400'000'000);
      CHECK(made.tokens < 400'000'000 + made.tokens_per_step);
      CHECK(made.tokens_per_step == config.tokens_per_step());
      CHECK(config.train.schedule.warmup_steps > 0);
    }
  }
}

TEST_CASE("init: at the size of a recipe its values come back", "[report][init]") {
  const auto small = make("ds-moe", 1'800'000, 4'000'000).config;
  CHECK(small.model.d_model == 192);
  CHECK(small.model.attention.n_experts == 4);
  CHECK(small.model.ffn.n_experts == 16);
  CHECK(small.model.ffn.d_expert == 48);
  CHECK(small.train.schedule.peak == 2e-3);
  CHECK(small.train.loss.moe_mi_weight == 1e-2);
  CHECK(small.train.loss.moa_mi_weight == 1e-3);
  CHECK(small.tokens_per_step() == 2048);
  const auto made = make("ds-moe", 1'173'000'000, 30'000'000'000);
  const auto& paper = made.config;
  CHECK_THAT(made.yaml, Catch::Contains("those of configs/ds_moe_1b.yaml"));
  CHECK(paper.model.d_model == 2048);
  CHECK(paper.model.n_layers == 24);
  CHECK(paper.model.attention.n_experts == 16);
  CHECK(paper.model.attention.heads_per_expert == 2);
  CHECK(paper.model.ffn.n_experts == 32);
  CHECK(paper.train.schedule.peak == 3e-4);
  CHECK(paper.train.loss.moe_mi_weight == 6.3e-4);
  CHECK(paper.train.optimizer.weight_decay == 0.01);
  CHECK(paper.tokens_per_step() == 1 << 19);
}

TEST_CASE("init: between the recipes the file says that no run had the size", "[report][init]") {
  const auto made = make("ds-moe", 20'000'000, 400'000'000);
  CHECK_THAT(made.yaml,
             Catch::Contains("between those of configs/quickstart.yaml and "
                             "configs/ds_moe_1b.yaml: no run had this size"));
  CHECK(made.config.train.schedule.peak > 3e-4);
  CHECK(made.config.train.schedule.peak < 2e-3);
  CHECK(made.name == "ds-moe-20m");
  CHECK(made.config.run_dir == "runs/ds-moe-20m");
  REQUIRE(made.policies.size() == 2);
  CHECK(made.policies[1].active_parameters < made.policies[0].active_parameters);
}

TEST_CASE("init: a style has its kinds and losses", "[report][init]") {
  CHECK(make("dense", 5'000'000, 10'000'000).config.model.ffn.kind == FfnKind::kDense);
  const auto smoe = make("smoe", 5'000'000, 10'000'000).config;
  CHECK(smoe.model.training_policy == "top_k=2");
  CHECK(smoe.train.loss.switch_weight == 0.01);
  const auto cut = make("partition", 5'000'000, 10'000'000).config;
  CHECK(cut.model.ffn.kind == FfnKind::kPartitioned);
  CHECK(cut.model.ffn.d_ffn == cut.model.ffn.n_experts * cut.model.ffn.d_expert);
  CHECK_THROWS_WITH(parse_starter_style("moe"), Catch::Contains("expected ds-moe, dense, smoe"));
}

TEST_CASE("init: a source gives the model and has no section of it", "[report][init]") {
  StarterRequest request;
  request.tokens = 10'000'000;
  request.source = {.path = "runs/$old",
                    .model = make("partition", 3'000'000, 1'000'000).config.model};
  const auto made = make_starter_config(request, "on.yaml");
  CHECK_THAT(made.yaml, !Catch::Contains("model:"));
  RunConfig config;
  CHECK(read_run_config_text(made.yaml, "on.yaml", {}, config).notes.empty());
  CHECK(config.train.init_from == "runs/$old");
  CHECK(config.train.loss.sparsity_weight == 1);
  CHECK(made.parameters.total() == count_parameters(request.source->model).total());
  request.parameters = 20'000'000;
  CHECK_THROWS_WITH(make_starter_config(request, "on.yaml"), Catch::Contains("--from runs/$old"));
}

TEST_CASE("init: requests that no model fits are refused", "[report][init]") {
  CHECK_THROWS_WITH(make("ds-moe", 1000, 1'000'000), Catch::Contains("--params in [500k, 20B]"));
  CHECK_THROWS_WITH(make("ds-moe", 1'000'000, 0), Catch::Contains("--tokens"));
  StarterRequest request;
  request.parameters = 1'000'000;
  request.tokens = 1'000'000;
  request.vocab_size = 100'000;
  CHECK_THROWS_WITH(make_starter_config(request, "f"), Catch::Contains("smaller vocabulary"));
}

}  // namespace
}  // namespace dsmoe
