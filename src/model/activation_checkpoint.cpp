#include "model/activation_checkpoint.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <mutex>
#include <optional>

namespace dsmoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor random_state(at::Device device) {
  auto generator = at::globalContext().defaultGenerator(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state();
}

void set_random_state(at::Device device, const at::Tensor& state) {
  auto generator = at::globalContext().defaultGenerator(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
}

struct Recipe : torch::CustomClassHolder {
  CheckpointedFunction function;
  at::Tensor random_state;
};

// Autograd functions return defined tensors only: absent outputs are returned as empty tensors.
struct Checkpoint : torch::autograd::Function<Checkpoint> {
  static variable_list forward(AutogradContext* ctx,
                               const at::Tensor& x,
                               const std::optional<at::Tensor>& y,
                               CheckpointedFunction function) {
    auto recipe = c10::make_intrusive<Recipe>();
    recipe->function = std::move(function);
    recipe->random_state = random_state(x.device());
    ctx->save_for_backward({x, y.value_or(at::Tensor())});
    ctx->set_materialize_grads(false);
    const at::NoGradGuard no_grad;
    auto outputs = recipe->function(x, y.value_or(at::Tensor()));
    ctx->saved_data["recipe"] = c10::IValue::make_capsule(recipe);
    variable_list without_gradient;
    for (const auto& output : outputs) {
      if (!output.is_floating_point()) without_gradient.push_back(output);
    }
    ctx->mark_non_differentiable(without_gradient);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto recipe =
        c10::static_intrusive_pointer_cast<Recipe>(ctx->saved_data["recipe"].toCapsule());
    const auto leaf_of = [](const at::Tensor& saved) {
      return saved.defined() ? saved.detach().requires_grad_(true) : saved;
    };
    const auto saved = ctx->get_saved_variables();
    const auto x = leaf_of(saved[0]);
    const auto y = leaf_of(saved[1]);
    const auto now = random_state(x.device());
    variable_list outputs;
    {
      set_random_state(x.device(), recipe->random_state);
      const at::AutoGradMode with_grad(true);
      outputs = recipe->function(x, y);
    }
    set_random_state(x.device(), now);
    variable_list roots;
    variable_list root_grads;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!grads[i].defined() || !outputs[i].requires_grad()) continue;
      roots.push_back(outputs[i]);
      root_grads.push_back(grads[i]);
    }
    torch::autograd::backward(roots, root_grads);
    return {x.grad(), y.defined() ? y.grad() : at::Tensor(), at::Tensor()};
  }
};

}  // namespace

std::vector<at::Tensor> checkpoint_activations(CheckpointedFunction function,
                                               const at::Tensor& x,
                                               const at::Tensor& y) {
  const auto optional_y = y.defined() ? std::optional<at::Tensor>(y) : std::nullopt;
  return Checkpoint::apply(x, optional_y, std::move(function));
}

}  // namespace dsmoe
