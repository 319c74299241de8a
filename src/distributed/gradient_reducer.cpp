#include "distributed/gradient_reducer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

namespace dsmoe {
namespace {

constexpr double kBytesPerMebibyte = 1 << 20;

// Sums bfloat16 copies of the buckets and divides by the number of ranks in float32.
class Bfloat16Hook : public c10d::CppCommHookInterface<c10::intrusive_ptr<c10d::ProcessGroup>> {
 public:
  using CppCommHookInterface::CppCommHookInterface;

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    std::vector<at::Tensor> narrow = {bucket.getBuffer().to(at::kBFloat16)};
    auto sum = state_->allreduce(narrow)->getFuture();
    const auto scale = 1.0 / static_cast<double>(state_->getSize());
    return sum->then(
        [buffer = bucket.getBuffer(), narrow = narrow[0], scale](c10::ivalue::Future& done) {
          (void)done.value();  // rethrows
          auto wide = buffer;
          wide.copy_(narrow).mul_(scale);
          return c10::IValue(std::vector<at::Tensor>{wide});
        },
        c10::ListType::create(c10::TensorType::get()));
  }
};

}  // namespace

GradientReducer::GradientReducer(RankGroup& group,
                                 const std::vector<std::pair<std::string, at::Tensor>>& parameters,
                                 const GradientReducerConfig& config)
    : group_(group) {
  if (group.world_size() == 1) return;
  std::vector<at::Tensor> tensors;
  std::unordered_map<size_t, std::string> names;
  for (const auto& [name, parameter] : parameters) {
    names.emplace(tensors.size(), name);
    tensors.push_back(parameter);
  }
  const auto process_group = group.process_group();
  group.run("comparing the parameters' shapes",
            [&] { c10d::verify_params_across_processes(process_group, tensors, std::nullopt); });
  {
    const at::NoGradGuard no_grad;
    for (const auto& [name, parameter] : parameters) {
      group.broadcast(parameter.detach(), "sending parameter " + name);
    }
  }
  const auto bucket_bytes = static_cast<int64_t>(config.bucket_mebibytes * kBytesPerMebibyte);
  const auto first_bytes = std::min<int64_t>(c10d::kDefaultFirstBucketBytes, bucket_bytes);
  const std::vector<bool> no_sparse(tensors.size(), false);
  auto [buckets, limits] = c10d::compute_bucket_assignment_by_size(
      tensors, {static_cast<size_t>(first_bytes), static_cast<size_t>(bucket_bytes)}, no_sparse);
  // Gradients arrive last layer first.
  std::vector<std::vector<size_t>> reversed(buckets.rbegin(), buckets.rend());
  reducer_ = std::make_unique<c10d::Reducer>(tensors,
                                             std::move(reversed),
                                             process_group,
                                             no_sparse,
                                             bucket_bytes,
                                             /*find_unused_parameters=*/false,
                                             /*gradient_as_bucket_view=*/true,
                                             std::move(names),
                                             first_bytes,
                                             /*skip_all_reduce_unused_params=*/false,
                                             /*use_python_reducer=*/false,
                                             std::vector<int64_t>{});
  if (config.compress_bfloat16) {
    reducer_->register_comm_hook(std::make_unique<Bfloat16Hook>(process_group));
  }
  lay_out_buckets(tensors);
}

// The reducer orders its buckets anew in its first backward pass, and the order decides how ranks
// are summed. A separate pass makes the order the same for a resumed and an uninterrupted run.
void GradientReducer::lay_out_buckets(const std::vector<at::Tensor>& parameters) {
  auto sum = parameters.front().sum();
  for (size_t i = 1; i < parameters.size(); ++i) sum = sum + parameters[i].sum();
  backward(sum, true);
  group_.run("laying out the buckets", [&] { reducer_->rebuild_buckets(); });
  for (const auto& parameter : parameters) parameter.mutable_grad() = at::Tensor();
}

GradientReducer::~GradientReducer() = default;

void GradientReducer::backward(const at::Tensor& loss, bool is_last) {
  if (!reducer_) {
    loss.backward();
    return;
  }
  if (!is_last) {
    loss.backward();
    return;
  }
  group_.run("averaging the gradients", [&] {
    reducer_->prepare_for_backward({});
    loss.backward();
  });
}

}  // namespace dsmoe
