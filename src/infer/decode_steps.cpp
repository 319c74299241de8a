#include "infer/decode_steps.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

namespace dsmoe {
namespace {

constexpr int64_t kSlots = 16;  // steps that the host may be ahead

}  // namespace

DecodeSteps::DecodeSteps(Transformer model, RoutingPlan plan, at::ScalarType compute_dtype)
    : model_(std::move(model)), plan_(std::move(plan)), compute_dtype_(compute_dtype) {}

const ModelOutput& DecodeSteps::run(const std::vector<int64_t>& tokens, KvCache& cache) {
  const auto batch = static_cast<int64_t>(tokens.size());
  if (cache.storage_id() != recorded_storage_ || !host_.defined() || host_.size(2) != batch) {
    const auto device = model_->device();
    graph_.reset();
    n_eager_ = 0;
    recorded_storage_ = cache.storage_id();
    host_ =
        at::empty({kSlots, 2, batch}, at::TensorOptions(at::kLong).pinned_memory(device.is_cuda()));
    inputs_ = at::empty({2, batch}, at::TensorOptions(at::kLong).device(device));
    slot_ = 0;
  }
  // Copies of the steps before may still read their slots.
  auto* module = opened_device_module();
  if (slot_ == kSlots && module != nullptr && model_->device().is_cuda()) module->synchronize();
  slot_ %= kSlots;
  const auto slot = host_.select(0, slot_++);
  auto* numbers = slot.data_ptr<int64_t>();
  std::copy(tokens.begin(), tokens.end(), numbers);
  for (int64_t b = 0; b < batch; ++b) numbers[batch + b] = cache.length(b);
  inputs_.copy_(slot, /*non_blocking=*/true);

  if (graph_ == nullptr && n_eager_ > 0 && can_record(cache)) {
    graph_ = module->record([&] { forward(cache); });
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
         model_->can_record_decoding(plan_, cache, compute_dtype_);
}

}  // namespace dsmoe
