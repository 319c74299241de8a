#include "infer/decode_steps.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

namespace dsmoe {

DecodeSteps::DecodeSteps(Transformer model, RoutingPlan plan, at::ScalarType compute_dtype)
    : model_(std::move(model)), plan_(std::move(plan)), compute_dtype_(compute_dtype) {}

const ModelOutput& DecodeSteps::run(const std::vector<int64_t>& tokens, KvCache& cache) {
  const auto batch = static_cast<int64_t>(tokens.size());
  if (cache.storage() != recorded_cache_ || !host_.defined() || host_.size(1) != batch) {
    const auto device = model_->device();
    graph_.reset();
    n_eager_ = 0;
    recorded_cache_ = cache.storage();
    host_ = at::empty({2, batch}, at::TensorOptions(at::kLong).pinned_memory(device.is_cuda()));
    inputs_ = device.is_cpu() ? host_ : at::empty({2, batch}, host_.options().device(device));
  }
  // The copy of the step before may still read what is written here.
  if (auto* module = opened_device_module(); module != nullptr && host_.is_pinned()) {
    module->synchronize();
  }
  auto* numbers = host_.data_ptr<int64_t>();
  std::copy(tokens.begin(), tokens.end(), numbers);
  for (int64_t b = 0; b < batch; ++b) numbers[batch + b] = cache.length(b);
  if (!inputs_.is_same(host_)) inputs_.copy_(host_, /*non_blocking=*/true);

  if (graph_ == nullptr && n_eager_ > 0 && can_record(cache)) {
    graph_ = opened_device_module()->record([&] { forward(cache); });
  }
  if (graph_ != nullptr) {
    cache.begin_pass(1);
    graph_->replay();
  } else {
    forward(cache);
    ++n_eager_;
  }
  cache.advance(1);
  return output_;
}

void DecodeSteps::forward(KvCache& cache) {
  output_ = model_->forward(inputs_.select(0, 0).unsqueeze(1),  // [batch, 1]
                            plan_,
                            {.compute_dtype = compute_dtype_,
                             .cache = &cache,
                             .cached_positions = inputs_.select(0, 1).unsqueeze(1)});
}

bool DecodeSteps::can_record(KvCache& cache) const {
  return !model_->device().is_cpu() && opened_device_module() != nullptr &&
         model_->decodes_without_waiting(plan_, cache, compute_dtype_);
}

}  // namespace dsmoe
