#include "train/sharded_optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <functional>

namespace dsmoe {
namespace {

// Elements [begin, begin + n) of a run of parameters, part by part.
struct Part {
  at::Tensor elements;  // flat view of one parameter
  int64_t offset;       // in the n
};

std::vector<Part> parts_of(const NamedTensors& tensors, int64_t begin, int64_t n) {
  std::vector<Part> parts;
  int64_t start = 0;
  for (const auto& [name, tensor] : tensors) {
    const int64_t first = std::max(begin, start);
    const int64_t last = std::min(begin + n, start + tensor.numel());
    if (first < last) {
      parts.push_back(
          {tensor.detach().view(-1).narrow(0, first - start, last - first), first - begin});
    }
    start += tensor.numel();
  }
  return parts;
}

// For every window of the shards: `read` fills this rank's elements, `write` gets every rank's.
using Read = std::function<void(int64_t begin, const at::Tensor& elements)>;
using Write = std::function<void(int64_t rank, int64_t begin, const at::Tensor& elements)>;

void exchange(const Optimizer& optimizer,
              RankGroup& ranks,
              const char* what,
              const Read& read,
              const Write& write) {
  const auto& options = optimizer.moments().options();
  const int64_t shard_size = optimizer.moments().size(1);
  const auto window = kExchangeBytes / static_cast<int64_t>(optimizer.moments().element_size());
  for (int64_t done = 0; done < shard_size; done += window) {
    const int64_t n = std::min(window, shard_size - done);
    const auto mine = at::zeros({n}, options);
    read(ranks.rank() * shard_size + done, mine);
    const auto all = at::empty({ranks.world_size(), n}, options);
    ranks.all_gather(all, mine, what);
    for (int64_t rank = 0; rank < ranks.world_size(); ++rank) {
      write(rank, rank * shard_size + done, all[rank]);
    }
  }
}

void read_elements(const NamedTensors& tensors, int64_t begin, const at::Tensor& elements) {
  for (const auto& part : parts_of(tensors, begin, elements.numel())) {
    elements.narrow(0, part.offset, part.elements.numel()).copy_(part.elements);
  }
}

void write_elements(const NamedTensors& tensors, int64_t begin, const at::Tensor& elements) {
  for (auto& part : parts_of(tensors, begin, elements.numel())) {
    part.elements.copy_(elements.narrow(0, part.offset, part.elements.numel()));
  }
}

// Whole moments of one kind as tensors of the parameters' shapes, on rank 0.
NamedTensors gather_moments(const Optimizer& optimizer, RankGroup& ranks, int64_t which) {
  NamedTensors whole;
  if (ranks.rank() == 0) {
    for (const auto& [name, parameter] : optimizer.parameters()) {
      whole.emplace_back(name, at::zeros(parameter.sizes(), parameter.scalar_type()));
    }
  }
  const auto moments = optimizer.moments().select(0, which);
  const int64_t shard_size = moments.numel();
  exchange(
      optimizer,
      ranks,
      "gathering the moments",
      [&](int64_t begin, const at::Tensor& elements) {
        elements.copy_(moments.narrow(0, begin - ranks.rank() * shard_size, elements.numel()));
      },
      [&](int64_t, int64_t begin, const at::Tensor& elements) {
        write_elements(whole, begin, elements);
      });
  return whole;
}

}  // namespace

OptimizerShard optimizer_shard(bool is_sharded, const RankGroup& ranks) {
  if (!is_sharded) return {};
  return {.index = ranks.rank(), .count = ranks.world_size()};
}

void share_parameters(Optimizer& optimizer, RankGroup& ranks) {
  if (!optimizer.is_sharded()) return;
  const at::NoGradGuard no_grad;
  const auto parameters = optimizer.parameters();
  exchange(
      optimizer,
      ranks,
      "sharing the updated parameters",
      [&](int64_t begin, const at::Tensor& elements) {
        read_elements(parameters, begin, elements);
      },
      [&](int64_t rank, int64_t begin, const at::Tensor& elements) {
        if (rank != ranks.rank()) write_elements(parameters, begin, elements);
      });
}

NamedTensors gather_state(const Optimizer& optimizer, RankGroup& ranks) {
  if (!optimizer.is_sharded()) return ranks.rank() == 0 ? optimizer.named_state() : NamedTensors{};
  const auto exp_avg = gather_moments(optimizer, ranks, 0);
  const auto exp_avg_sq = gather_moments(optimizer, ranks, 1);
  NamedTensors whole;
  const auto steps = optimizer.steps();
  for (size_t i = 0; i < exp_avg.size(); ++i) {
    const auto& [name, step] = steps[i];
    whole.emplace_back(name + ".exp_avg", exp_avg[i].second);
    whole.emplace_back(name + ".exp_avg_sq", exp_avg_sq[i].second);
    whole.emplace_back(name + ".step", step);
  }
  return whole;
}

void scatter_state(Optimizer& optimizer, RankGroup& ranks, const NamedTensors& whole) {
  const at::NoGradGuard no_grad;
  const auto parameters = optimizer.parameters();
  const auto steps = optimizer.steps();
  const auto moments = optimizer.moments();  // [2, shard_size]
  const int64_t mine = optimizer.shard_begin();
  int64_t start = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto& [name, parameter] = parameters[i];
    for (int64_t which = 0; which < 2; ++which) {
      const auto values = at::empty(parameter.sizes(), moments.options());
      if (ranks.rank() == 0) values.copy_(whole.at(3 * i + static_cast<size_t>(which)).second);
      ranks.broadcast(values, "sending the moments of " + name);
      const int64_t first = std::max(start, mine);
      const int64_t last = std::min(start + parameter.numel(), mine + moments.size(1));
      if (first >= last) continue;
      moments.select(0, which)
          .narrow(0, first - mine, last - first)
          .copy_(values.view(-1).narrow(0, first - start, last - first));
    }
    auto step = steps[i].second;
    if (ranks.rank() == 0) step.copy_(whole.at(3 * i + 2).second);
    ranks.broadcast(step, "sending the steps of " + name);
    start += parameter.numel();
  }
}

}  // namespace dsmoe
