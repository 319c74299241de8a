#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>

#include "common/config_reader.h"
#include "model/parameter_count.h"
#include "train/train_config.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;

RunConfig read_preset(const std::string& name) {
  RunConfig config;
  read_config_file(std::string(DSMOE_SOURCE_DIR "/configs/") + name, {}, [&](ConfigVisitor& v) {
    describe(v, config);
  });
  return config;
}

RunConfig read_model(const std::string& name) { return read_preset(name + ".yaml"); }

std::vector<std::string> models_named(const std::string& prefix) {
  std::vector<std::string> names;
  for (const auto& file : fs::directory_iterator(DSMOE_SOURCE_DIR "/configs")) {
    const auto name = file.path().filename().string();
    if (name.rfind(prefix, 0) == 0) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct Published {
  const char* name;
  int64_t matrices;
  int64_t routers;
  double total_millions;  // as printed, embeddings left out
};

double millions(int64_t count) { return static_cast<double>(count) / 1e6; }

// Active parameters in millions, K of the FFN experts and all of attention.
double active_millions(const ModelConfig& config, int64_t top_k) {
  auto active = all_experts(config);
  std::fill(active.moe.begin(), active.moe.end(), static_cast<double>(top_k));
  return active_parameters(config, active) / 1e6;
}

}  // namespace

TEST_CASE("configs: every file is a valid run", "[train][presets]") {
  int n_files = 0;
  for (const auto& file : fs::directory_iterator(DSMOE_SOURCE_DIR "/configs")) {
    if (file.path().extension() != ".yaml") continue;
    INFO(file.path());
    CHECK_NOTHROW(read_preset(file.path().filename().string()).validate());
    ++n_files;
  }
  CHECK(n_files >= 21);
}

// Tables 1 and 6 of arXiv:2404.05567; matrices and routers are exact, printed totals within 0.3 %.
TEST_CASE("configs: the published models have the published sizes", "[train][presets]") {
  const auto published = GENERATE(Published{"dense_1b", 1'019'215'872, 0, 1017},
                                  Published{"dense_3b", 2'708'471'808, 0, 2705},
                                  Published{"dense_6b", 6'190'792'704, 0, 6186},
                                  Published{"dense_10b", 9'673'113'600, 0, 9667},
                                  Published{"dense_14b", 13'929'283'584, 0, 13923},
                                  Published{"dense_19b", 18'959'302'656, 0, 18951},
                                  Published{"smoe_1b", 1'019'215'872, 25'214'976, 1042},
                                  Published{"smoe_1.5b", 1'421'869'056, 25'239'552, 1445},
                                  Published{"ds_moe_1b", 1'019'215'872, 50'626'560, 1067},
                                  Published{"ds_moe_3b", 2'708'471'808, 88'367'104, 2793},
                                  Published{"ds_moe_6b", 6'190'792'704, 151'363'584, 6343},
                                  Published{"ds_moe_10b", 9'673'113'600, 189'112'320, 9857},
                                  Published{"ds_moe_14b", 13'929'283'584, 226'861'056, 14149},
                                  Published{"ds_moe_19b", 18'959'302'656, 264'609'792, 19216});
  INFO(published.name);
  const auto count = count_parameters(read_model(published.name).model);
  CHECK(count.matrices == published.matrices);
  CHECK(count.routers == published.routers);
  CHECK(count.biases == 0);
  CHECK(millions(count.matrices + count.routers) == Approx(published.total_millions).epsilon(3e-3));
}

TEST_CASE("configs: linear routers have one matrix each", "[train][presets]") {
  const auto [name, routers] = GENERATE(std::pair{"ds_moe_1b", int64_t{2'359'296}},
                                        std::pair{"ds_moe_3b", int64_t{3'440'640}},
                                        std::pair{"ds_moe_6b", int64_t{5'898'240}});
  auto config = read_model(name).model;
  config.ffn.router.kind = config.attention.router.kind = RouterKind::kLinear;
  CHECK(count_parameters(config).routers == routers);
}

// The paper's larger sparse models fit two routers a layer although they have no attention experts.
TEST_CASE("configs: the large sparse models fall one router a layer short of the paper",
          "[train][presets]") {
  const auto [name, total_millions] = GENERATE(std::pair{"smoe_5b", 4911.0},
                                               std::pair{"smoe_17b", 17413.0},
                                               std::pair{"smoe_25b", 25029.0},
                                               std::pair{"smoe_34b", 34023.0});
  const auto config = read_model(name).model;
  const auto count = count_parameters(config);
  INFO(name);
  CHECK(count.routers == config.n_layers * 256 * (2 * config.d_model + config.ffn.n_experts));
  CHECK(millions(count.matrices + 2 * count.routers) == Approx(total_millions).epsilon(3e-3));
}

TEST_CASE("configs: active parameters of the speed test at four experts", "[train][presets]") {
  const auto [name, expected] = GENERATE(std::pair{"ds_moe_10b", 3256.2},
                                         std::pair{"ds_moe_14b", 4643.5},
                                         std::pair{"ds_moe_19b", 6276.1});
  const auto config = read_model(name).model;
  // The paper counts no norms.
  const double active = active_millions(config, 4) - millions(count_parameters(config).norms);
  CHECK(active == Approx(expected).margin(0.05));
}

TEST_CASE("configs: heads and experts of the paper's models add up to those of the dense baseline",
          "[train][presets]") {
  for (const auto& name : models_named("ds_moe_")) {
    INFO(name);
    const auto config = read_preset(name).model;
    const auto& attention = config.attention;
    CHECK(attention.n_experts * attention.heads_per_expert * attention.head_dim == config.d_model);
    CHECK(config.ffn.n_experts * config.ffn.d_expert == 4 * config.d_model);
    const auto dense = read_preset("dense_" + name.substr(7)).model;
    CHECK(dense.ffn.d_ffn == 4 * config.d_model);
    CHECK(count_parameters(config).matrices == count_parameters(dense).matrices);
  }
}

TEST_CASE("configs: the recipes spend the paper's tokens", "[train][presets]") {
  for (const auto* family : {"ds_moe_", "dense_", "smoe_"}) {
    for (const auto& name : models_named(family)) {
      INFO(name);
      const auto config = read_preset(name);
      const bool small = config.model.d_model == 2048;
      const int64_t tokens_per_step =
          config.train.batch_size * config.train.accumulation * config.seq_len();
      CHECK(tokens_per_step == (small ? 1 << 19 : 1 << 21));
      CHECK(config.train.steps == (small ? 60'000 : 50'000));
      CHECK(config.train.schedule.warmup_steps == (small ? 2000 : 1000));
      CHECK(config.train.schedule.peak == 3e-4);
      CHECK(config.train.optimizer.weight_decay == 0.01);
      CHECK(config.train.optimizer.clip_norm == 1.0);
    }
  }
  CHECK(read_model("ds_moe_1b").train.loss.moe_mi_weight == 6.3e-4);
  CHECK(read_model("ds_moe_1b").train.loss.moa_mi_weight == 3.5e-4);
  CHECK(read_model("ds_moe_3b").train.loss.moe_mi_weight == 4e-4);
  CHECK(read_model("ds_moe_6b").train.loss.moe_mi_weight == 2e-4);
  CHECK(read_model("smoe_5b").model.training_policy == "top_k=2");
}

}  // namespace dsmoe
