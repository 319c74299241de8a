#include "model/io/model_source.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "csrc_kernels/random_tensors.h"
#include "formats/llama2c.h"
#include "model/io/checkpoint_writer.h"
#include "model/io/export_model.h"
#include "model/io/packed_loader.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;
using Tensors = std::map<std::string, at::Tensor>;

nlohmann::json hf_config() {
  return {{"model_type", "llama"},
          {"hidden_size", 8},
          {"intermediate_size", 12},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 6},
          {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 500.0},
          {"max_position_embeddings", 32},
          {"vocab_size", 11}};
}

Tensors hf_tensors(const nlohmann::json& config, at::ScalarType dtype = at::kFloat) {
  RandomTensors random(1);
  Tensors tensors;
  for (const auto& tensor : llama_tensors(parse_llama_config(config.dump(), "config").model)) {
    tensors[tensor.hf_name] = (random.normal(tensor.shape) * 0.3).to(dtype);
  }
  return tensors;
}

void write_tensors(const std::string& path, const Tensors& tensors) {
  std::vector<TensorBytes> bytes;
  for (const auto& [name, tensor] : tensors) {
    bytes.push_back(
        {name, dtype_name(tensor.scalar_type()), tensor.sizes().vec(), tensor.const_data_ptr()});
  }
  write_safetensors(posix_io(), path, {}, bytes);
}

void write_directory(const TemporaryDirectory& directory,
                     const nlohmann::json& config,
                     const Tensors& tensors) {
  write_file(posix_io(), directory.file("config.json"), config.dump());
  write_tensors(directory.file("model.safetensors"), tensors);
}

std::string refusal(const nlohmann::json& config, const Tensors& tensors) {
  const TemporaryDirectory directory;
  write_directory(directory, config, tensors);
  try {
    open_hf_llama(posix_io(), directory.file(""));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

at::Tensor logits_of(const ModelSource& source) {
  const at::NoGradGuard no_grad;
  auto model = instantiate(source);
  const auto tokens = at::arange(7, at::kLong).unsqueeze(0);
  return model(tokens, RoutingPolicy::all()).logits;
}

const LazyTensor& tensor_named(const ModelSource& source, const std::string& name) {
  for (const auto& tensor : source.tensors) {
    if (tensor.name == name) return tensor;
  }
  throw std::runtime_error("no tensor " + name);
}

}  // namespace

TEST_CASE("open_hf_llama: one file and shards give the same model", "[model][io]") {
  const auto tensors = hf_tensors(hf_config());
  const TemporaryDirectory single;
  write_directory(single, hf_config(), tensors);
  // Llama 3.2 was published with one that is no JSON.
  write_file(posix_io(), single.file("generation_config.json"), "{\"eos_token_id\": [1,}");
  const auto source = open_hf_llama(posix_io(), single.file(""));
  CHECK_FALSE(source.config.tie_embeddings);
  CHECK(source.config.attention.head_dim == 6);
  CHECK(source.tensors.size() == 3 + 2 * 9);
  CHECK(at::equal(tensor_named(source, "blocks_1.ffn.down_proj.weight").load(),
                  tensors.at("model.layers.1.mlp.down_proj.weight")));
  CHECK(at::equal(tensor_named(source, "head.weight").load(), tensors.at("lm_head.weight")));

  const TemporaryDirectory sharded;
  Tensors parts[2];
  nlohmann::json index = {{"metadata", {{"total_size", 1}}}};
  size_t n = 0;
  for (const auto& [name, tensor] : tensors) {
    const size_t shard = n++ % 2;
    parts[shard][name] = tensor;
    index["weight_map"][name] = fmt::format("model-0000{}-of-00002.safetensors", shard + 1);
  }
  write_file(posix_io(), sharded.file("config.json"), hf_config().dump());
  write_file(posix_io(), sharded.file("model.safetensors.index.json"), index.dump());
  write_tensors(sharded.file("model-00001-of-00002.safetensors"), parts[0]);
  CHECK_THROWS_WITH(open_hf_llama(posix_io(), sharded.file("")), Contains("model-00002-of-00002"));
  write_tensors(sharded.file("model-00002-of-00002.safetensors"), parts[1]);
  CHECK(at::equal(logits_of(open_hf_llama(posix_io(), sharded.file(""))), logits_of(source)));

  index["weight_map"].erase("model.norm.weight");
  write_file(posix_io(), sharded.file("model.safetensors.index.json"), index.dump());
  CHECK_THROWS_WITH(open_hf_llama(posix_io(), sharded.file("")), Contains("model.norm.weight"));
  index["weight_map"]["model.norm.weight"] = "../model-00001-of-00002.safetensors";
  write_file(posix_io(), sharded.file("model.safetensors.index.json"), index.dump());
  CHECK_THROWS_WITH(open_hf_llama(posix_io(), sharded.file("")), Contains("plain name"));
}

TEST_CASE("open_llama: rotary pairs of neighbours become halves, head by head", "[model][io]") {
  const auto config = hf_config();
  const auto tensors = hf_tensors(config);
  const TemporaryDirectory directory;
  write_directory(directory, config, tensors);
  const std::vector<std::string> files{directory.file("model.safetensors")};
  const auto source = open_llama(std::make_shared<SafetensorsSource>(posix_io(), files),
                                 parse_llama_config(config.dump(), "config").model,
                                 RotaryPairs::kNeighbours,
                                 "files");
  // Two heads of keys, four of queries, of six rows each.
  const std::vector<int64_t> rows{0, 2, 4, 1, 3, 5};
  for (const auto& [part, n_heads] : {std::pair("k_proj", 2), std::pair("q_proj", 4)}) {
    const auto& theirs = tensors.at(fmt::format("model.layers.1.self_attn.{}.weight", part));
    const auto ours =
        tensor_named(source, fmt::format("blocks_1.attention.{}.weight", part)).load();
    for (int64_t i = 0; i < 6 * n_heads; ++i) {
      CHECK(ours[i].equal(theirs[i / 6 * 6 + rows[static_cast<size_t>(i % 6)]]));
    }
  }
  const auto values = tensor_named(source, "blocks_1.attention.v_proj.weight").load();
  CHECK(values.equal(tensors.at("model.layers.1.self_attn.v_proj.weight")));
}

TEST_CASE("open_hf_llama: half-precision weights are widened exactly", "[model][io]") {
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    const auto tensors = hf_tensors(hf_config(), dtype);
    const TemporaryDirectory directory;
    write_directory(directory, hf_config(), tensors);
    const auto source = open_hf_llama(posix_io(), directory.file(""));
    const auto loaded = tensor_named(source, "blocks_0.attention.q_proj.weight").load();
    CHECK(loaded.scalar_type() == at::kFloat);
    CHECK(at::equal(loaded.to(dtype), tensors.at("model.layers.0.self_attn.q_proj.weight")));
  }
}

TEST_CASE("open_hf_llama: a head is stored or declared tied; a tied head equals the embedding",
          "[model][io]") {
  auto config = hf_config();
  auto tensors = hf_tensors(config);
  tensors.erase("lm_head.weight");
  CHECK_THAT(refusal(config, tensors),
             Contains("missing: lm_head.weight") && Contains("tie_word_embeddings"));
  config["tie_word_embeddings"] = false;
  CHECK_THAT(refusal(config, tensors), Contains("missing: lm_head.weight"));
  config["tie_word_embeddings"] = true;
  CHECK(refusal(config, tensors).empty());
  tensors["lm_head.weight"] = tensors.at("model.embed_tokens.weight").clone();
  CHECK(refusal(config, tensors).empty());
  tensors["lm_head.weight"].add_(1.0);
  CHECK_THAT(refusal(config, tensors), Contains("tie_word_embeddings"));
}

TEST_CASE("open_hf_llama: the error names any missing tensor", "[model][io]") {
  auto config = hf_config();
  config["attention_bias"] = config["mlp_bias"] = true;
  const auto tensors = hf_tensors(config);
  CHECK(tensors.size() == 3 + 2 * (9 + 7));
  for (const auto& [name, tensor] : tensors) {
    auto fewer = tensors;
    fewer.erase(name);
    CHECK_THAT(refusal(config, fewer), Contains("missing: " + name));
    auto more = tensors;
    more[name + "_scale"] = tensor;
    CHECK_THAT(refusal(config, more), Contains("unused: " + name + "_scale"));
  }
}

TEST_CASE("checkpoints: every reader names any missing tensor", "[model][io]") {
  auto tensors = hf_tensors(hf_config());
  const TemporaryDirectory directory;
  write_directory(directory, hf_config(), tensors);
  const auto whole = open_hf_llama(posix_io(), directory.file(""));
  for (size_t i = 0; i < whole.tensors.size(); ++i) {
    auto fewer = whole;
    const auto name = fewer.tensors[i].name;
    CAPTURE(name);
    fewer.tensors.erase(fewer.tensors.begin() + static_cast<int64_t>(i));
    CHECK_THROWS_WITH(instantiate(fewer), Contains("missing: " + name));
    const auto out = directory.file(fmt::format("fewer-{}", i));
    write_converted(posix_io(), {out}, fewer, {});
    const auto checkpoint = find_checkpoint(posix_io(), out);
    CHECK_THROWS_WITH(load_model(posix_io(), checkpoint), Contains("'" + name + "'"));
    CHECK_THROWS_WITH(open_checkpoint(posix_io(), checkpoint), Contains("'" + name + "'"));
    CHECK_THROWS_WITH(load_packed_model(posix_io(), checkpoint, {}), Contains("'" + name + "'"));
  }
}

TEST_CASE("open_hf_llama: every tensor is accounted for", "[model][io]") {
  const auto tensors = hf_tensors(hf_config());
  auto changed = tensors;
  changed["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::arange(3, at::kFloat);
  CHECK(refusal(hf_config(), changed).empty());
  changed["model.layers.0.self_attn.q_proj.bias"] = at::arange(24, at::kFloat);
  changed.erase("model.layers.1.mlp.up_proj.weight");
  CHECK_THAT(refusal(hf_config(), changed), Contains("missing: model.layers.1.mlp.up_proj.weight"));
  CHECK_THAT(refusal(hf_config(), changed),
             Contains("unused: model.layers.0.self_attn.q_proj.bias"));
  changed = tensors;
  changed["model.norm.weight"] = at::arange(9, at::kFloat);
  CHECK_THAT(refusal(hf_config(), changed), Contains("'model.norm.weight': expected shape [8]"));
  changed["model.norm.weight"] = at::arange(8, at::kLong);
  CHECK_THAT(refusal(hf_config(), changed), Contains("got I64"));
}

TEST_CASE("open_hf_llama: biases in both halves belong to the model", "[model][io]") {
  auto config = hf_config();
  config["attention_bias"] = true;
  CHECK_THAT(refusal(config, {}), Contains("attention_bias and mlp_bias differ"));
  config["mlp_bias"] = true;
  const auto tensors = hf_tensors(config);
  CHECK(tensors.contains("model.layers.0.self_attn.o_proj.bias"));
  const TemporaryDirectory directory;
  write_directory(directory, config, tensors);
  auto plain = tensors;
  for (auto& [name, tensor] : plain) {
    if (name.ends_with(".bias")) tensor = tensor * 0.0;
  }
  const TemporaryDirectory without;
  write_directory(without, config, plain);
  CHECK(max_difference(logits_of(open_hf_llama(posix_io(), directory.file(""))),
                       logits_of(open_hf_llama(posix_io(), without.file("")))) > 1e-3);
}

TEST_CASE("hf-llama: export writes the imported bytes", "[model][io]") {
  auto config = hf_config();
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 16}};
  const auto tensors = hf_tensors(config, at::kBFloat16);
  const TemporaryDirectory directory;
  write_directory(directory, config, tensors);
  const auto source = open_hf_llama(posix_io(), directory.file(""));
  const auto out = directory.file("out");
  const ExportRequest request{.dtype = at::kBFloat16, .special_tokens = {.bos = 1, .eos = {2, 7}}};
  const auto report = export_model(posix_io(), instantiate(source), "hf-llama", request, out);
  CHECK(report.tensors_written == 21);
  CHECK(report.max_abs_logit_error == 0.0);
  for (const auto* name : {"/config.json", "/generation_config.json"}) {
    const auto json = nlohmann::json::parse(read_file(posix_io(), out + name, 1 << 20));
    CHECK(json["bos_token_id"] == 1);
    CHECK(json["eos_token_id"] == nlohmann::json({2, 7}));
  }
  const auto written = open_hf_llama(posix_io(), out);
  CHECK(at::equal(logits_of(written), logits_of(source)));
  const SafetensorsFile before(posix_io(), directory.file("model.safetensors"));
  const SafetensorsFile after(posix_io(), out + "/model.safetensors");
  REQUIRE(before.tensors().size() == after.tensors().size());
  for (const auto& entry : before.tensors()) {
    const auto* other = after.find(entry.name);
    REQUIRE(other != nullptr);
    REQUIRE(other->dtype == entry.dtype);
    REQUIRE(other->shape == entry.shape);
    std::string a(entry.end - entry.begin, 'a');
    std::string b(a.size(), 'b');
    before.read(entry, a.data());
    after.read(*other, b.data());
    CHECK(a == b);
  }
}

TEST_CASE("write_converted: the checkpoint holds the source and a failure leaves no files",
          "[model][io]") {
  const TemporaryDirectory directory;
  auto tensors = hf_tensors(hf_config());
  write_directory(directory, hf_config(), tensors);
  const auto source = open_hf_llama(posix_io(), directory.file(""));
  const auto out = directory.file("out");
  write_converted(posix_io(), {out}, source, {});
  const auto read = open_checkpoint(posix_io(), find_checkpoint(posix_io(), out));
  CHECK(read.tensors.size() == source.tensors.size());
  CHECK(at::equal(logits_of(read), logits_of(source)));
  CHECK_THROWS_WITH(write_converted(posix_io(), {out}, source, {}), Contains("exists"));

  auto broken = source;
  broken.tensors.back().load = [] { return at::arange(88, at::kFloat).view({11, 8}) / 0.0; };
  CHECK_THROWS_WITH(write_converted(posix_io(), {directory.file("bad")}, broken, {}),
                    Contains("NaN or Inf"));
  for (const auto& item : std::filesystem::directory_iterator(directory.file(""))) {
    CHECK_THAT(item.path().filename().string(), !Contains("bad"));
  }
}

TEST_CASE("check_llama_keys: refuses keys that change the function and returns unknown keys",
          "[model][io]") {
  const auto check = [](const std::string& key, const nlohmann::json& value) {
    auto config = hf_config();
    config[key] = value;
    return parse_llama_config(config.dump(), "config.json").unknown_keys;
  };
  const nlohmann::json full = {"full_attention", "full_attention"};
  const std::vector<std::pair<const char*, nlohmann::json>> refused = {
      {"sliding_window", 16},
      {"layer_types", {"full_attention", "sliding_attention"}},
      {"layer_types", "full_attention"},
      {"attn_logit_softcapping", 50.0},
      {"final_logit_softcapping", 30.0},
      {"partial_rotary_factor", 0.5},
      {"quantization_config", {{"quant_method", "fp8"}}},
      {"embedding_multiplier", 12.0},
      {"residual_multiplier", 0.22},
      {"logits_scaling", 8.0},
      {"attention_multiplier", 0.0078125},
      {"num_local_experts", 8},
      {"use_qk_norm", true},
      {"hidden_activation", "gelu"},
      {"no_rope_layers", {1, 1, 1, 0}},
      {"rope_scaling", {{"type", "default"}, {"partial_rotary_factor", 0.25}}},
      {"rope_parameters", {{"full_attention", {{"rope_type", "default"}}}}}};
  for (const auto& [key, value] : refused) {
    CAPTURE(key, value);
    CHECK_THROWS_WITH(check(key, value), Contains(key) && Contains("config.json"));
    CHECK(check(key, nullptr).empty());
  }
  const std::vector<std::pair<const char*, nlohmann::json>> harmless = {
      {"sliding_window", 32},  // the whole context
      {"layer_types", full},
      {"attn_logit_softcapping", 0},
      {"partial_rotary_factor", 1.0},
      {"residual_multiplier", 1},
      {"num_local_experts", 0},
      {"pretraining_tp", 2},
      {"torch_dtype", "bfloat16"},
      {"use_cache", false},
      {"rope_scaling", {{"rope_type", "default"}, {"partial_rotary_factor", 1.0}}}};
  for (const auto& [key, value] : harmless) {
    CAPTURE(key, value);
    CHECK(check(key, value).empty());
  }
  CHECK(check("frobnication_factor", 2.0) == std::vector<std::string>{"frobnication_factor"});
  CHECK(check("rope_scaling", {{"type", "default"}, {"mscale", 0.7}}) ==
        std::vector<std::string>{"rope_scaling.mscale"});
}

TEST_CASE("parse_llama_config: reads both spellings of the rotary settings and refuses others",
          "[model][io]") {
  auto old = hf_config();
  old["rope_scaling"] = {{"type", "llama3"},
                         {"factor", 32.0},
                         {"low_freq_factor", 1.0},
                         {"high_freq_factor", 4.0},
                         {"original_max_position_embeddings", 8192}};
  auto now = hf_config();
  now.erase("rope_theta");
  now["rope_parameters"] = old["rope_scaling"];
  now["rope_parameters"].erase("type");
  now["rope_parameters"]["rope_type"] = "llama3";
  now["rope_parameters"]["rope_theta"] = 500.0;
  for (const auto& json : {old, now}) {
    const auto model = parse_llama_config(json.dump(), "config.json").model;
    CHECK(model.rope_theta == 500.0);
    CHECK(model.rope_scaling.kind == RopeScalingKind::kLlama3);
    CHECK(model.rope_scaling.factor == 32.0);
    CHECK(model.rope_scaling.original_max_seq_len == 8192);
  }
  const auto message = [](const nlohmann::json& json) {
    try {
      parse_llama_config(json.dump(), "config.json");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  auto json = hf_config();
  json["rope_scaling"] = nullptr;
  json["head_dim"] = nullptr;
  CHECK(message(json).empty());
  CHECK(parse_llama_config(json.dump(), "").model.attention.head_dim == 2);
  for (const auto* kind : {"linear", "dynamic", "yarn", "longrope"}) {
    json["rope_scaling"] = {{"type", kind}, {"factor", 2.0}};
    CHECK_THAT(message(json), Contains(kind));
  }
  json = hf_config();
  const std::vector<std::pair<const char*, nlohmann::json>> refused = {{"model_type", "mixtral"},
                                                                       {"hidden_act", "gelu"},
                                                                       {"hidden_size", -1},
                                                                       {"hidden_size", 8.5},
                                                                       {"hidden_size", nullptr},
                                                                       {"num_hidden_layers", 5000},
                                                                       {"num_key_value_heads", 3},
                                                                       {"vocab_size", 1e30},
                                                                       {"vocab_size", "11"},
                                                                       {"tie_word_embeddings", 1},
                                                                       {"rms_norm_eps", "x"},
                                                                       {"rope_theta", 0.5},
                                                                       {"head_dim", 5}};
  for (const auto& [key, value] : refused) {
    json = hf_config();
    json[key] = value;
    INFO(key << " " << value);
    CHECK_FALSE(message(json).empty());
  }
  CHECK_THROWS_AS(parse_llama_config("[]", ""), Error);
  CHECK_THROWS_AS(parse_llama_config("{", ""), Error);
}

}  // namespace dsmoe
