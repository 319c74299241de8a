#include "model/io/export_model.h"

#include <ATen/core/grad_mode.h>

#include <catch2/catch.hpp>

#include "common/error.h"
#include "formats/gguf_reader.h"
#include "formats/safetensors.h"
#include "model/io/jetmoe_export.h"
#include "model/io/tensor_link.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

ModelConfig base_config() {
  ModelConfig config;
  config.vocab_size = 37;
  config.d_model = 12;
  config.n_layers = 2;
  config.max_seq_len = 20;
  config.ffn.activation = Activation::kSwiglu;
  config.ffn.n_experts = 6;
  config.ffn.d_expert = 5;
  config.ffn.router.kind = RouterKind::kLinear;
  return config;
}

ModelConfig jetmoe_config(int64_t n_attention_experts) {
  auto config = base_config();
  config.attention.head_dim = 4;
  config.attention.n_experts = n_attention_experts;
  config.attention.heads_per_expert = 2;
  config.attention.router.kind = RouterKind::kLinear;
  return config;
}

ModelConfig olmoe_config(bool qk_norm, int64_t n_kv_heads) {
  auto config = base_config();
  config.attention.kind = AttentionKind::kDense;
  config.attention.head_dim = 2;
  config.attention.n_heads = 6;
  config.attention.n_kv_heads = n_kv_heads;
  config.attention.qk_norm = qk_norm;
  return config;
}

Transformer random_model(const ModelConfig& config) {
  Transformer model(config);
  init_weights(model, 5, 0.4);
  model->eval();
  return model;
}

ExportReport write(const ModelConfig& config,
                   const std::string& target,
                   const std::string& policy,
                   const std::string& out,
                   at::ScalarType dtype = at::kFloat) {
  return export_model(posix_io(),
                      random_model(config),
                      target,
                      {.plan = parse_routing_plan(policy), .dtype = dtype},
                      out);
}

std::string refusal(const ModelConfig& config,
                    const std::string& target,
                    const std::string& policy = "all") {
  const TemporaryDirectory directory;
  try {
    write(config, target, policy, directory.file("out"));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("export: a densely run model is exact in JetMoE with every expert selected",
          "[model][io]") {
  const int64_t n_attention_experts = GENERATE(6, 3, 1);
  auto config = jetmoe_config(n_attention_experts);
  config.tie_embeddings = GENERATE(true, false);
  const TemporaryDirectory directory;
  const auto report = write(config, "hf-jetmoe", "all", directory.file("out"));
  CHECK(report.max_abs_logit_error < 1e-5 * report.max_abs_logit);
  CHECK(report.max_abs_logit > 0.1);
  const SafetensorsFile file(posix_io(), directory.file("out/model.safetensors"));
  // The file has as many attention experts as FFN experts.
  CHECK(file.find("model.layers.1.self_attention.experts.input_linear.weight")->shape ==
        std::vector<int64_t>{6, 8, 12});
  CHECK(file.find("model.layers.1.mlp.input_linear.weight")->shape ==
        std::vector<int64_t>{6, 10, 12});
  CHECK((file.find("lm_head.weight") != nullptr) == !config.tie_embeddings);
}

TEST_CASE("export: JetMoE's config sets the keys that releases read differently", "[model][io]") {
  const TemporaryDirectory directory;
  write(jetmoe_config(6), "hf-jetmoe", "all", directory.file("out"));
  const auto text = read_file(posix_io(), directory.file("out/config.json"), 1 << 20);
  for (const char* part : {"\"num_key_value_heads\": 2",
                           "\"kv_channels\": 4",
                           "\"head_dim\": 4",  // 2 * 4 * 6 is not d_model
                           "\"num_experts_per_tok\": 6",
                           "\"tie_word_embeddings\": true",
                           "\"rope_theta\": 10000.0",
                           "\"rope_parameters\""}) {
    CHECK_THAT(text, Catch::Contains(part));
  }
}

TEST_CASE("export: JetMoE with fewer experts needs renormalised weights of both kinds",
          "[model][io]") {
  auto config = jetmoe_config(6);
  CHECK_THAT(refusal(config, "hf-jetmoe", "moe:top_k=2;moa:top_k=2"),
             Catch::Contains("router.renormalise false with 2 of 6 experts"));
  config.attention.router.renormalise = config.ffn.router.renormalise = true;
  const TemporaryDirectory directory;
  const auto report = write(config, "hf-jetmoe", "moe:top_k=2;moa:top_k=2", directory.file("out"));
  CHECK(report.max_abs_logit_error < 1e-5 * report.max_abs_logit);
  CHECK_THAT(refusal(config, "hf-jetmoe", "moe:top_k=2;moa:all"),
             Catch::Contains("as many attention experts as FFN experts"));
  config.attention.n_experts = 3;
  CHECK_THAT(refusal(config, "hf-jetmoe", "moe:top_k=2;moa:top_k=2"),
             Catch::Contains("moa.n_experts 3, moe.n_experts 6"));
  config.attention.n_experts = 4;
  CHECK_THAT(refusal(config, "hf-jetmoe"), Catch::Contains("does not divide the second"));
}

TEST_CASE("export: JetMoE expresses SiLU, quick-GELU and squared ReLU as gated experts",
          "[model][io]") {
  auto config = jetmoe_config(3);
  const auto [activation, function] =
      GENERATE(std::pair{Activation::kSilu, "\"activation_function\": \"sigmoid\""},
               std::pair{Activation::kQuickGelu, "\"activation_function\": \"sigmoid\""},
               std::pair{Activation::kReluSquared, "\"activation_function\": \"relu\""});
  config.ffn.activation = activation;
  config.output_bias = GENERATE(false, true);
  const TemporaryDirectory directory;
  const auto report = write(config, "hf-jetmoe", "all", directory.file("out"));
  CHECK(report.max_abs_logit_error < 1e-5 * report.max_abs_logit);
  CHECK_THAT(read_file(posix_io(), directory.file("out/config.json"), 1 << 20),
             Catch::Contains(function));
  const auto read = read_jetmoe(posix_io(), directory.file("out"));
  CHECK(read->config().ffn.activation == activation);
  const bool exact = activation != Activation::kQuickGelu;
  const auto narrow = [&] {
    write(config, "hf-jetmoe", "all", directory.file("narrow"), at::kBFloat16);
  };
  if (exact) {
    CHECK_NOTHROW(narrow());
  } else {
    CHECK_THROWS_WITH(narrow(), Catch::Contains("expected float32 for ffn.activation quick_gelu"));
  }
}

TEST_CASE("export: a JetMoE directory with one bias that is not zero has biases", "[model][io]") {
  auto config = jetmoe_config(6);
  config.output_bias = true;
  auto model = random_model(config);
  const std::string name =
      GENERATE("blocks_0.moe.experts.down_proj.bias", "blocks_1.moa.o_proj.bias", "none");
  if (name != "none") {
    const at::NoGradGuard no_grad;
    model->named_parameters()[name][3].fill_(0.5);
  }
  const TemporaryDirectory directory;
  const auto out = directory.file("out");
  const auto report =
      export_model(posix_io(), model, "hf-jetmoe", {.plan = parse_routing_plan("all")}, out);
  CHECK(report.max_abs_logit_error < 1e-5 * report.max_abs_logit);
  CHECK(read_jetmoe(posix_io(), out)->config().output_bias == (name != "none"));
}

TEST_CASE("export: a JetMoE expert with different halves is refused as a SiLU expert",
          "[model][io]") {
  auto config = jetmoe_config(6);
  const TemporaryDirectory directory;
  write(config, "hf-jetmoe", "all", directory.file("out"));
  const auto path = directory.file("out/config.json");
  auto text = read_file(posix_io(), path, 1 << 20);
  text.replace(text.find("\"silu\""), 6, "\"relu\"");
  write_file(posix_io(), path, text);
  CHECK_THROWS_WITH(read_jetmoe(posix_io(), directory.file("out")),
                    Catch::Contains("expected both halves to be equal"));
}

TEST_CASE("export: errors name every feature that JetMoE lacks", "[model][io]") {
  const auto refused = [](void (*change)(ModelConfig&)) {
    auto config = jetmoe_config(6);
    change(config);
    return refusal(config, "hf-jetmoe");
  };
  CHECK_THAT(refused([](ModelConfig& c) { c.ffn.activation = Activation::kGeluTanh; }),
             Catch::Contains("ffn.activation gelu_tanh"));
  CHECK_THAT(refused([](ModelConfig& c) { c.ffn.activation = Activation::kGelu; }),
             Catch::Contains("ffn.activation gelu:"));
  CHECK_THAT(refused([](ModelConfig& c) { c.ffn.router.kind = RouterKind::kSwiglu; }),
             Catch::Contains("moe.router.kind swiglu"));
  CHECK_THAT(refused([](ModelConfig& c) { c.attention.router.kind = RouterKind::kSwiglu; }),
             Catch::Contains("moa.router.kind swiglu"));
  CHECK_THAT(refused([](ModelConfig& c) { c.norm = NormKind::kLayerNorm; }),
             Catch::Contains("norm layer_norm"));
  CHECK_THAT(refused([](ModelConfig& c) { c.norm_eps = 1e-5; }), Catch::Contains("norm_eps 1e-05"));
  CHECK_THAT(refused([](ModelConfig& c) { c.positions = PositionKind::kLearned; }),
             Catch::Contains("positions learned"));
  CHECK_THAT(refused([](ModelConfig& c) { c.bias = true; }), Catch::Contains("bias"));
  CHECK_THAT(refused([](ModelConfig& c) { c.attention.kind = AttentionKind::kDense; }),
             Catch::Contains("attention.kind dense"));
  CHECK_THAT(refused([](ModelConfig& c) { c.ffn.kind = FfnKind::kDense; }),
             Catch::Contains("ffn.kind dense"));
  CHECK_THAT(refusal(jetmoe_config(6), "hf-jetmoe", "threshold=0.48"),
             Catch::Contains("different numbers of experts"));
}

TEST_CASE("export: OLMoE keeps raw or renormalised weights and grouped keys", "[model][io]") {
  auto config = olmoe_config(/*qk_norm=*/true, GENERATE(6, 2));
  config.ffn.router.renormalise = GENERATE(false, true);
  config.tie_embeddings = GENERATE(true, false);
  const auto policy = GENERATE("all", "top_k=2");
  const TemporaryDirectory directory;
  const auto report = write(config, "hf-olmoe", policy, directory.file("out"));
  CHECK(report.max_abs_logit_error < 1e-5 * report.max_abs_logit);
  const SafetensorsFile file(posix_io(), directory.file("out/model.safetensors"));
  CHECK(file.find("model.layers.0.mlp.experts.5.down_proj.weight")->shape ==
        std::vector<int64_t>{12, 5});
}

TEST_CASE("export: errors name every feature that OLMoE lacks", "[model][io]") {
  const auto refused = [](void (*change)(ModelConfig&), const char* target) {
    auto config = olmoe_config(/*qk_norm=*/true, 6);
    change(config);
    return refusal(config, target);
  };
  for (const char* target : {"hf-olmoe", "gguf"}) {
    CHECK_THAT(refused([](ModelConfig& c) { c.ffn.activation = Activation::kSilu; }, target),
               Catch::Contains("ffn.activation silu"));
    CHECK_THAT(refused([](ModelConfig& c) { c.output_bias = true; }, target),
               Catch::Contains("output_bias"));
  }

  CHECK_THAT(refusal(olmoe_config(false, 6), "hf-olmoe"),
             Catch::Contains("attention.qk_norm false"));
  CHECK_THAT(refusal(jetmoe_config(6), "hf-olmoe"), Catch::Contains("attention.kind moa"));
  auto config = olmoe_config(true, 6);
  config.attention.head_dim = 4;
  CHECK_THAT(refusal(config, "hf-olmoe"), Catch::Contains("6 heads of 4 make 24"));
  CHECK_THAT(refusal(olmoe_config(true, 6), "hf-olmoe", "threshold=0.48"),
             Catch::Contains("different numbers of experts"));
}

TEST_CASE("export: GGUF takes architecture olmoe with qk_norm, qwen2moe without", "[model][io]") {
  const bool qk_norm = GENERATE(true, false);
  auto config = olmoe_config(qk_norm, qk_norm ? 6 : 3);
  config.tie_embeddings = GENERATE(true, false);
  config.rope_theta = 5000;
  const auto dtype = GENERATE(at::kFloat, at::kHalf, at::kBFloat16);
  const TemporaryDirectory directory;
  const auto out = directory.file("model.gguf");
  const auto report = write(config, "gguf", "top_k=2", out, dtype);
  CHECK(report.max_abs_logit_error < 1e-5 * report.max_abs_logit);
  const GgufFile file(posix_io(), out);
  const std::string architecture = qk_norm ? "olmoe" : "qwen2moe";
  CHECK(std::get<std::string>(*file.find_value("general.architecture")) == architecture);
  CHECK(std::get<uint32_t>(*file.find_value(architecture + ".expert_used_count")) == 2);
  CHECK(std::get<uint32_t>(*file.find_value(architecture + ".feed_forward_length")) == 5);
  CHECK(std::get<float>(*file.find_value(architecture + ".rope.freq_base")) == 5000);
  CHECK(file.find_tensor("output.weight") != nullptr);
  for (const char* name :
       {"blk.1.ffn_gate_inp.weight", "blk.1.attn_norm.weight", "output_norm.weight"}) {
    CHECK(file.find_tensor(name)->type == GgufType::kF32);
  }
  CHECK(file.find_tensor("blk.1.ffn_down_exps.weight")->shape == std::vector<int64_t>{6, 12, 5});
  CHECK((file.find_tensor("blk.1.ffn_gate_shexp.weight") != nullptr) == !qk_norm);
}

TEST_CASE("export: GGUF's qwen2moe has the widths and the gate that llama.cpp requires",
          "[model][io]") {
  const TemporaryDirectory directory;
  const auto out = directory.file("model.gguf");
  write(olmoe_config(/*qk_norm=*/false, 3), "gguf", "top_k=2", out);
  const GgufFile file(posix_io(), out);
  CHECK(std::get<uint32_t>(*file.find_value("qwen2moe.expert_feed_forward_length")) == 5);
  CHECK(std::get<uint32_t>(*file.find_value("qwen2moe.expert_shared_feed_forward_length")) == 32);
  // The gate's value divides in llama.cpp: zero would make NaN of a shared expert of zeros.
  const auto* gate = file.find_tensor("blk.0.ffn_gate_inp_shexp.weight");
  REQUIRE(gate->shape == std::vector<int64_t>{12});
  std::vector<float> values(12);
  file.read(*gate, values.data());
  for (const float value : values) CHECK(value > 0);
}

TEST_CASE("export: errors name every feature that GGUF lacks", "[model][io]") {
  CHECK_THAT(refusal(olmoe_config(true, 2), "gguf"), Catch::Contains("n_kv_heads 2 of n_heads 6"));
  CHECK_THAT(refusal(jetmoe_config(6), "gguf"), Catch::Contains("attention.kind moa"));
  auto config = olmoe_config(false, 6);
  config.ffn.router.renormalise = true;
  CHECK_THAT(refusal(config, "gguf", "top_k=2"), Catch::Contains("never divides"));
  CHECK(refusal(config, "gguf", "all").empty());
}

TEST_CASE("export: a parameter without a tensor in the target is named", "[model][io]") {
  const auto model = random_model(olmoe_config(true, 6));
  const Parameters parameters(model);
  std::vector<TensorLink> links;
  for (const auto& [name, tensor] : model->named_parameters().pairs()) {
    if (name != "blocks_1.ffn_norm.weight") links.push_back({name, {parameters.at(name)}});
  }
  CHECK_THROWS_WITH(check_every_parameter_is_linked(model, links),
                    Catch::Contains("no place for 'blocks_1.ffn_norm.weight'"));
  links.push_back({"last", {parameters.of_block(1, "ffn_norm.weight")}});
  CHECK_NOTHROW(check_every_parameter_is_linked(model, links));
}

TEST_CASE("export: an existing path and an unknown target are refused", "[model][io]") {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("out"), "mine");
  CHECK_THROWS_WITH(write(olmoe_config(true, 6), "gguf", "all", directory.file("out")),
                    Catch::Contains("exists") && Catch::Contains("--force"));
  CHECK(read_file(posix_io(), directory.file("out"), 10) == "mine");
  CHECK_THROWS_WITH(write(olmoe_config(true, 6), "ggml", "all", directory.file("x")),
                    Catch::Contains("hf-jetmoe, hf-olmoe, hf-llama, gguf"));
}

}  // namespace dsmoe
