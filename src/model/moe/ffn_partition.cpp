#include "model/moe/ffn_partition.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randperm.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "common/error.h"
#include "common/random_seed.h"

namespace dsmoe {
namespace {

ModelConfig cut_config(const ModelConfig& dense, const PartitionOptions& options) {
  if (dense.ffn.kind != FfnKind::kDense) {
    throw Error("partition: expected a model with dense FFNs, got one with experts");
  }
  if (dense.ffn.d_ffn % options.n_experts != 0) {
    throw Error(fmt::format("partition: n_experts = {} does not divide the FFN width {}",
                            options.n_experts,
                            dense.ffn.d_ffn));
  }
  auto config = dense;
  config.ffn.kind = FfnKind::kPartitioned;
  config.ffn.n_experts = options.n_experts;
  config.ffn.d_expert = dense.ffn.d_ffn / options.n_experts;
  config.ffn.router = {.kind = RouterKind::kLinear};
  config.ffn.partition = {};
  config.ffn.partition.layers = options.layers;
  config.training_policy = "threshold=0.5";
  config.validate();
  return config;
}

at::Tensor draw_router(const ModelConfig& config, double std, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::empty({config.ffn.n_experts, config.d_model}, at::kFloat).normal_(0.0, std, generator);
}

// Reorders the neurons of one matrix or bias of an FFN.
LazyTensor reorder(const LazyTensor& tensor, int64_t d_ffn, uint64_t seed) {
  if (tensor.name.ends_with("down_proj.bias")) return tensor;
  const int64_t dim = tensor.name.ends_with("down_proj.weight") ? 1 : 0;
  auto reordered = tensor;
  reordered.load = [load = tensor.load, dim, d_ffn, seed] {
    const auto order =
        at::randperm(d_ffn, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kLong));
    return load().index_select(dim, order).contiguous();
  };
  return reordered;
}

int64_t parse_count(const std::string& value, const std::string& text) {
  int64_t number = 0;
  const auto* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, number);
  if (error != std::errc{} || stop != end || number < 0) {
    throw Error(fmt::format("--partition: expected a number, got '{}' in '{}'", value, text));
  }
  return number;
}

double parse_std(const std::string& value, const std::string& text) {
  double number = 0;
  const auto* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, number);
  if (error != std::errc{} || stop != end || !(number > 0 && number <= 100)) {
    throw Error(
        fmt::format("--partition: router_std: expected a number above 0 (zeros would open no "
                    "gate) and at most 100, got '{}' in '{}'",
                    value,
                    text));
  }
  return number;
}

PartitionMethod parse_method(const std::string& value) {
  if (value == "contiguous") return PartitionMethod::kContiguous;
  if (value == "random") return PartitionMethod::kRandom;
  throw Error(fmt::format("--partition: method: expected contiguous or random, got '{}'", value));
}

}  // namespace

PartitionOptions parse_partition_options(const std::string& text) {
  PartitionOptions options;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const auto part = text.substr(begin, end - begin);
    const auto equals = part.find('=');
    const auto key = part.substr(0, equals);
    auto value = equals == std::string::npos ? "" : part.substr(equals + 1);
    if (key == "n_experts") {
      options.n_experts = parse_count(value, text);
    } else if (key == "seed") {
      options.seed = static_cast<uint64_t>(parse_count(value, text));
    } else if (key == "method") {
      options.method = parse_method(value);
    } else if (key == "layers") {
      std::replace(value.begin(), value.end(), '+', ',');
      options.layers = value;
    } else if (key == "router_std") {
      options.router_std = parse_std(value, text);
    } else {
      throw Error(fmt::format(
          "--partition: expected n_experts=, method=, seed=, layers= or router_std=, got '{}'",
          part));
    }
    begin = end + 1;
  }
  if (options.n_experts < 1) throw Error("--partition: n_experts = 0 is below 1");
  return options;
}

ModelSource partition_ffn(const ModelSource& dense, const PartitionOptions& options) {
  ModelSource cut{.config = cut_config(dense.config, options), .tensors = dense.tensors};
  for (int64_t i = 0; i < cut.config.n_layers; ++i) {
    if (!cut.config.has_ffn_experts(i)) continue;
    const auto index = static_cast<uint64_t>(i);
    const auto from = fmt::format("blocks_{}.ffn.", i);
    const auto to = fmt::format("blocks_{}.moe.experts.", i);
    for (auto& tensor : cut.tensors) {
      if (!tensor.name.starts_with(from)) continue;
      tensor.name = to + tensor.name.substr(from.size());
      if (options.method == PartitionMethod::kRandom) {
        const auto seed = derive_seed(options.seed, "neuron order", index);
        tensor = reorder(tensor, dense.config.ffn.d_ffn, seed);
      }
    }
    const auto seed = derive_seed(options.seed, "router", index);
    cut.tensors.push_back({fmt::format("blocks_{}.moe.router.out_proj.weight", i),
                           {cut.config.ffn.n_experts, cut.config.d_model},
                           [config = cut.config, std = options.router_std, seed] {
                             return draw_router(config, std, seed);
                           }});
  }
  return cut;
}

}  // namespace dsmoe
