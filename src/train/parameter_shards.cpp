#include "train/parameter_shards.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "common/error.h"
#include "train/sharded_optimizer.h"

namespace dsmoe {
namespace {

constexpr std::string_view kBlockPrefix = "blocks_";

// Group 0 has what is outside the blocks, group i + 1 block i.
int64_t group_of(const std::string& name) {
  int64_t block = 0;
  if (name.rfind(kBlockPrefix, 0) != 0) return 0;
  std::from_chars(name.data() + kBlockPrefix.size(), name.data() + name.size(), block);
  return block + 1;
}

// Matrices of a block that Linear::weight_as alone reads; routers read theirs in float32.
bool is_narrow_matrix(const std::string& name, const at::Tensor& parameter) {
  return group_of(name) > 0 && parameter.dim() == 2 && name.find(".router.") == std::string::npos;
}

ShardLayout layout_of(const NamedTensors& parameters, int64_t n_layers, int64_t n_shards) {
  std::vector<ShardedParameter> placed;
  for (const auto& [name, parameter] : parameters) {
    placed.push_back({.name = name,
                      .n_elements = parameter.numel(),
                      .group = group_of(name),
                      .is_narrow = is_narrow_matrix(name, parameter)});
  }
  return ShardLayout(std::move(placed), n_layers + 1, n_shards);
}

std::string describe_group(size_t group) {
  return group == 0 ? "outside the blocks" : fmt::format("of block {}", group - 1);
}

}  // namespace

ParameterShards::ParameterShards(Transformer model,
                                 RankGroup& ranks,
                                 at::ScalarType compute_dtype,
                                 ShardLevel level)
    : ranks_(ranks),
      level_(level),
      parameters_(named_parameters(*model)),
      layout_(layout_of(parameters_, model->config().n_layers, ranks.world_size())) {
  make_groups(compute_dtype);
  watch_gradients();
}

// The hooks refer to this: the parameters get new accumulators if they train on.
ParameterShards::~ParameterShards() {
  for (const auto& node : accumulators_) node->post_hooks().clear();
}

void ParameterShards::make_groups(at::ScalarType compute_dtype) {
  const at::NoGradGuard no_grad;
  const auto wide = parameters_.front().second.options().requires_grad(false);
  const auto narrow = wide.dtype(wide.dtype() == at::kDouble ? at::kDouble : compute_dtype);
  int64_t most = 0;
  for (const auto& shard : layout_.groups()) {
    auto& group = groups_.emplace_back();
    group.master = at::zeros({shard.n_elements()}, wide);
    group.gradient = at::zeros({shard.n_elements()}, wide);
    group.narrow = at::zeros({shard.narrow * layout_.n_shards()}, narrow);
    group.wide = at::zeros({shard.wide * layout_.n_shards()}, wide);
    const bool is_block = groups_.size() > 1;
    if (is_block) most = std::max(most, shard.n_elements());
  }
  const auto add_slot = [&](int64_t n) {
    slots_.push_back(
        {.parts = at::zeros({layout_.n_shards() * n}, wide), .sum = at::zeros({n}, wide)});
  };
  if (level_ == ShardLevel::kGradients) {
    add_slot(layout_.groups()[0].n_elements());
    add_slot(most);
    add_slot(most);
  } else {
    for (const auto& shard : layout_.groups()) add_slot(shard.n_elements());
  }
  for (size_t i = 0; i < parameters_.size(); ++i) {
    auto& parameter = parameters_[i].second;
    const auto& placed = layout_.parameters()[i];
    auto& group = groups_[static_cast<size_t>(placed.group)];
    group.parameters.push_back(i);
    const auto values = parameter.detach().contiguous().view(-1);
    for (const auto& piece : layout_.pieces_of(i)) {
      if (piece.shard != ranks_.rank()) continue;
      group.master.narrow(0, piece.offset, piece.n_elements)
          .copy_(values.narrow(0, piece.begin, piece.n_elements));
    }
    const auto& flat = placed.is_narrow ? group.narrow : group.wide;
    parameter.set_data(
        flat.narrow(0, layout_.flat_begin(i), placed.n_elements).view(parameter.sizes()));
  }
}

void ParameterShards::watch_gradients() {
  has_arrived_.resize(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    auto node = torch::autograd::impl::grad_accumulator(parameters_[i].second);
    node->add_post_hook(std::make_unique<torch::autograd::utils::LambdaPostHook>(
        [this, i](const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>&) {
          arrive(i);
          return outputs;
        }));
    accumulators_.push_back(std::move(node));
  }
}

std::vector<OptimizedPiece> ParameterShards::pieces() const {
  std::vector<OptimizedPiece> pieces;
  for (const auto& piece : layout_.pieces_in(ranks_.rank())) {
    const auto& [name, parameter] = parameters_[piece.parameter];
    const auto& group = groups_[static_cast<size_t>(layout_.parameters()[piece.parameter].group)];
    pieces.push_back({.name = name,
                      .elements = group.master.narrow(0, piece.offset, piece.n_elements),
                      .gradient = group.gradient.narrow(0, piece.offset, piece.n_elements),
                      .decays = parameter.dim() >= 2,
                      .begin = piece.begin});
  }
  return pieces;
}

void ParameterShards::backward(const at::Tensor& loss, bool is_last) {
  for (auto& group : groups_) group.n_arrived = 0;
  std::fill(has_arrived_.begin(), has_arrived_.end(), false);
  n_unreduced_ = groups_.size();
  is_last_ = is_last;
  loss.backward();
  check_complete();
  for (auto& slot : slots_) finish(slot);
  ++n_micro_batches_;
}

// Runs in the backward pass. Groups are reduced in one order on every rank: by index, not by
// arrival.
void ParameterShards::arrive(size_t parameter) {
  has_arrived_[parameter] = true;
  ++groups_[static_cast<size_t>(layout_.parameters()[parameter].group)].n_arrived;
  while (n_unreduced_ > 0) {
    const auto& next = groups_[n_unreduced_ - 1];
    if (next.n_arrived < next.parameters.size()) return;
    reduce(--n_unreduced_);
  }
}

ParameterShards::Slot& ParameterShards::slot_of(size_t group) {
  if (level_ == ShardLevel::kOptimizer || group == 0) return slots_[group];
  return slots_[1 + group % 2];
}

void ParameterShards::finish(Slot& slot) {
  if (!slot.pending.is_pending() && !slot.added_to.defined()) return;
  slot.pending.wait();
  if (slot.added_to.defined()) slot.added_to.add_(slot.sum);
  slot.added_to = at::Tensor();
}

void ParameterShards::reduce(size_t index) {
  const at::NoGradGuard no_grad;
  auto& group = groups_[index];
  auto& slot = slot_of(index);
  finish(slot);
  const bool is_first = n_micro_batches_ == 0;
  const int64_t n = group.gradient.numel();
  const auto parts = slot.parts.narrow(0, 0, layout_.n_shards() * n).view({layout_.n_shards(), n});
  const bool is_scattered = level_ == ShardLevel::kGradients;
  take_gradients(group, parts, is_first || is_scattered);
  if (!is_scattered && !is_last_) return;
  const auto what = "adding the gradients " + describe_group(index);
  if (is_first || !is_scattered) {
    slot.pending = ranks_.start_reduce_scatter(parts, group.gradient, what);
    return;
  }
  slot.pending = ranks_.start_reduce_scatter(parts, slot.sum.narrow(0, 0, n), what);
  slot.added_to = group.gradient;
}

// Widens the gradients into the parts of their shards and drops them.
void ParameterShards::take_gradients(Group& group, const at::Tensor& parts, bool is_first) {
  for (const size_t i : group.parameters) {
    auto& gradient = parameters_[i].second.mutable_grad();
    const auto values = gradient.contiguous().view(-1);
    for (const auto& piece : layout_.pieces_of(i)) {
      const auto from = values.narrow(0, piece.begin, piece.n_elements);
      auto to = parts.select(0, piece.shard).narrow(0, piece.offset, piece.n_elements);
      if (is_first) {
        to.copy_(from);
      } else {
        to.add_(from);
      }
    }
    gradient = at::Tensor();
  }
}

void ParameterShards::check_complete() const {
  if (n_unreduced_ == 0) return;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (has_arrived_[i]) continue;
    const auto group = static_cast<size_t>(layout_.parameters()[i].group);
    throw RunError(fmt::format("ranks: expected a gradient of every parameter, got none of '{}' {}",
                               parameters_[i].first,
                               describe_group(group)));
  }
}

void ParameterShards::gather() {
  const at::NoGradGuard no_grad;
  std::vector<PendingCollective> pending;
  for (size_t i = 0; i < groups_.size(); ++i) {
    auto& group = groups_[i];
    const auto& shard = layout_.groups()[i];
    const auto what = "gathering the weights " + describe_group(i);
    const auto send = [&](at::Tensor& flat, int64_t offset, int64_t n) {
      if (n == 0) return;
      flat.narrow(0, ranks_.rank() * n, n).copy_(group.master.narrow(0, offset, n));
      pending.push_back(ranks_.start_all_gather(flat, what));
    };
    send(group.wide, shard.narrow, shard.wide);
    send(group.narrow, 0, shard.narrow);
  }
  for (auto& one : pending) one.wait();
  // A collective writes unseen by autograd: copies in other types compare the version.
  for (const auto& [name, parameter] : parameters_) parameter.unsafeGetTensorImpl()->bump_version();
}

std::optional<std::string> ParameterShards::first_non_finite_gradient() const {
  for (const auto& piece : pieces()) {
    if (!at::isfinite(piece.gradient).all().item<bool>()) return piece.name;
  }
  return std::nullopt;
}

NamedTensors ParameterShards::empty_masters() const {
  NamedTensors masters;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, parameter] = parameters_[i];
    masters.emplace_back(name, at::zeros(parameter.sizes(), groups_.front().master.scalar_type()));
  }
  return masters;
}

NamedTensors ParameterShards::empty_state() const {
  NamedTensors state;
  for (const auto& [name, master] : empty_masters()) {
    state.emplace_back(name + ".exp_avg", master);
    state.emplace_back(name + ".exp_avg_sq", at::zeros_like(master));
    state.emplace_back(name + ".step", at::zeros({}, at::kFloat));
  }
  return state;
}

// One tensor for each parameter, from tensors that are laid out as the groups' shards; on rank 0.
std::vector<at::Tensor> ParameterShards::gather_whole(const std::vector<at::Tensor>& shards,
                                                      const char* what) {
  std::vector<at::Tensor> whole(parameters_.size());
  for (size_t g = 0; g < groups_.size(); ++g) {
    const int64_t n = shards[g].numel();
    const auto all = at::empty({layout_.n_shards(), n}, shards[g].options());
    ranks_.all_gather(all, shards[g], what);
    if (ranks_.rank() != 0) continue;
    for (const size_t i : groups_[g].parameters) {
      auto values = at::empty({parameters_[i].second.numel()}, all.options().device(at::kCPU));
      for (const auto& piece : layout_.pieces_of(i)) {
        values.narrow(0, piece.begin, piece.n_elements)
            .copy_(all[piece.shard].narrow(0, piece.offset, piece.n_elements));
      }
      whole[i] = values.view(parameters_[i].second.sizes());
    }
  }
  return whole;
}

NamedTensors ParameterShards::whole_masters() {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> shards;
  for (const auto& group : groups_) shards.push_back(group.master);
  const auto whole = gather_whole(shards, "gathering the masters");
  NamedTensors masters;
  if (ranks_.rank() != 0) return masters;
  for (size_t i = 0; i < whole.size(); ++i) masters.emplace_back(parameters_[i].first, whole[i]);
  return masters;
}

NamedTensors ParameterShards::whole_state(const Optimizer& optimizer) {
  const at::NoGradGuard no_grad;
  const auto own = optimizer.named_state();  // three tensors a piece
  const auto pieces = layout_.pieces_in(ranks_.rank());
  std::vector<std::vector<at::Tensor>> moments;
  for (size_t which = 0; which < 2; ++which) {
    std::vector<at::Tensor> shards;
    for (const auto& group : groups_) shards.push_back(at::zeros_like(group.master));
    for (size_t k = 0; k < pieces.size(); ++k) {
      const auto g = static_cast<size_t>(layout_.parameters()[pieces[k].parameter].group);
      shards[g].narrow(0, pieces[k].offset, pieces[k].n_elements).copy_(own[3 * k + which].second);
    }
    moments.push_back(gather_whole(shards, "gathering the moments"));
  }
  NamedTensors state;
  if (ranks_.rank() != 0) return state;
  // Every parameter gets a gradient in every step: all have one number of updates.
  const auto step = own.at(2).second;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& name = parameters_[i].first;
    state.emplace_back(name + ".exp_avg", moments[0][i]);
    state.emplace_back(name + ".exp_avg_sq", moments[1][i]);
    state.emplace_back(name + ".step", step);
  }
  return state;
}

// Rank 0's values of one parameter on every rank, flat.
at::Tensor ParameterShards::send_whole(size_t parameter,
                                       const at::Tensor& whole,
                                       const std::string& what) {
  const auto values =
      at::empty({parameters_[parameter].second.numel()}, groups_.front().master.options());
  if (ranks_.rank() == 0) values.copy_(whole.reshape({-1}));
  ranks_.broadcast(values, what + parameters_[parameter].first);
  return values;
}

void ParameterShards::assign_masters(const NamedTensors& whole) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto values =
        send_whole(i, ranks_.rank() == 0 ? whole.at(i).second : at::Tensor(), "sending parameter ");
    auto& master = groups_[static_cast<size_t>(layout_.parameters()[i].group)].master;
    for (const auto& piece : layout_.pieces_of(i)) {
      if (piece.shard != ranks_.rank()) continue;
      master.narrow(0, piece.offset, piece.n_elements)
          .copy_(values.narrow(0, piece.begin, piece.n_elements));
    }
  }
}

void ParameterShards::assign_state(Optimizer& optimizer, const NamedTensors& whole) {
  const at::NoGradGuard no_grad;
  const auto own = optimizer.named_state();
  const auto pieces = layout_.pieces_in(ranks_.rank());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    for (size_t which = 0; which < 3; ++which) {
      const auto from = ranks_.rank() == 0 ? whole.at(3 * i + which).second : at::Tensor();
      const auto values =
          which < 2 ? send_whole(i, from, "sending the moments of ") : at::zeros({}, at::kFloat);
      if (which == 2) {
        if (ranks_.rank() == 0) values.copy_(from);
        ranks_.broadcast(values, "sending the steps of " + parameters_[i].first);
      }
      for (size_t k = 0; k < pieces.size(); ++k) {
        if (pieces[k].parameter != i) continue;
        auto to = own[3 * k + which].second;
        to.copy_(which == 2 ? values : values.narrow(0, pieces[k].begin, pieces[k].n_elements));
      }
    }
  }
}

std::unique_ptr<ParameterShards> make_shards(const Transformer& model,
                                             const RunConfig& config,
                                             RankGroup& ranks) {
  const auto level = config.distributed.shard;
  if (level == ShardLevel::kNone || ranks.world_size() == 1) return nullptr;
  const bool is_float32 = config.train.compute_dtype == ComputeDtype::kFloat32;
  return std::make_unique<ParameterShards>(
      model, ranks, is_float32 ? at::kFloat : at::kBFloat16, level);
}

Optimizer make_optimizer(const Transformer& model,
                         const ParameterShards* shards,
                         const RunConfig& config,
                         const RankGroup& ranks) {
  if (shards != nullptr) return Optimizer(shards->pieces(), config.train.optimizer);
  return Optimizer(named_parameters(*model),
                   config.train.optimizer,
                   optimizer_shard(config.distributed.shard_optimizer, ranks));
}

}  // namespace dsmoe
