#include "csrc_kernels/mutual_information/mutual_information.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/softmax.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "csrc_kernels/common/tensors.h"
#include "csrc_kernels/mutual_information/kernels.h"

namespace dsmoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kMutualInformation = "mutual_information";

template <typename W>
RouterRows<W> rows_of(const at::Tensor& logits, const at::Tensor& counted) {
  return {.n_rows = logits.size(0),
          .n_experts = logits.size(1),
          .logits = pointer<const W>(logits),
          .counted = pointer<const bool>(counted)};
}

bool has_kernel(const at::Tensor& logits) {
  return logits.is_cpu() || (device_kernels<MutualInformationKernels<float>>().sums != nullptr &&
                             logits.size(1) <= kMostDeviceExperts);
}

// [n_experts + 1] float64: sums of p_j, and of p log p, over the counted rows.
at::Tensor sums_of(const at::Tensor& logits, const at::Tensor& counted) {
  const int64_t n_rows = logits.size(0);
  const int64_t n_chunks = logits.is_cpu() ? mutual_information_chunks(n_rows)
                                           : mutual_information_device_chunks(n_rows);
  const auto sums = at::empty({n_chunks, logits.size(1) + 1}, logits.options().dtype(at::kDouble));
  dispatch_float_types(kMutualInformation, logits.scalar_type(), [&]<typename T, typename W>() {
    kernels_for<MutualInformationKernels<W>>(logits.is_cpu())
        .sums(rows_of<W>(logits, counted), pointer<double>(sums));
  });
  return sums.sum(0);
}

// A number on the device of `logits`, without a host sync.
at::Tensor scalar_beside(const at::Tensor& logits, int64_t number) {
  return at::full(
      {}, static_cast<double>(std::max<int64_t>(number, 1)), logits.options().dtype(at::kDouble));
}

at::Tensor count_of(const at::Tensor& counted) {
  return counted.sum().clamp_min(1).to(at::kDouble);
}

struct MutualInformation : torch::autograd::Function<MutualInformation> {
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& logits,
                            const OptionalTensor& counted,
                            const OptionalTensor& mean_probs,
                            int64_t n_tokens) {
    const auto mask = tensor_or_undefined(counted);
    const auto sums = sums_of(logits, mask);
    const auto n_counted = mask.defined() ? count_of(mask) : scalar_beside(logits, logits.size(0));
    const auto n_total = n_tokens > 0 ? scalar_beside(logits, n_tokens) : n_counted;
    const auto sum_probs = sums.narrow(0, 0, logits.size(1));
    const auto mean = mean_probs ? mean_probs->to(at::kDouble) : sum_probs / n_counted;
    // An expert with probability 0 in every row adds nothing.
    const auto log_mean = mean.clamp_min(1e-38).log();
    ctx->save_for_backward({logits, mask, log_mean.to(logits.scalar_type()), n_total});
    const auto divergence = sums[logits.size(1)] - (sum_probs * log_mean).sum();
    return (-divergence / n_total).to(logits.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& logits = saved[0];
    const auto factor = (grads[0].to(at::kDouble) / saved[3]).to(logits.scalar_type());
    const auto grad_logits = at::empty_like(logits);
    dispatch_float_types(kMutualInformation, logits.scalar_type(), [&]<typename T, typename W>() {
      kernels_for<MutualInformationKernels<W>>(logits.is_cpu())
          .backward(rows_of<W>(logits, saved[1]),
                    pointer<const W>(saved[2]),
                    pointer<const W>(factor),
                    pointer<W>(grad_logits));
    });
    return {grad_logits, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

void check(const at::Tensor& logits, const at::Tensor& counted) {
  TORCH_CHECK(logits.dim() == 2 && logits.size(1) > 0 &&
                  (logits.scalar_type() == at::kFloat || logits.scalar_type() == at::kDouble),
              kMutualInformation,
              ": expected logits [n_rows, n_experts] of type float32 or float64, got ",
              logits.sizes(),
              " ",
              logits.scalar_type());
  TORCH_CHECK(!counted.defined() || (counted.dim() == 1 && counted.size(0) == logits.size(0) &&
                                     counted.scalar_type() == at::kBool),
              kMutualInformation,
              ": expected counted [",
              logits.size(0),
              "] of type bool");
}

at::Tensor contiguous(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.contiguous() : tensor;
}

}  // namespace

at::Tensor mutual_information(const at::Tensor& logits,
                              const at::Tensor& counted,
                              const at::Tensor& mean_probs,
                              int64_t n_tokens) {
  check(logits, counted);
  TORCH_CHECK(!mean_probs.defined() || mean_probs.sizes() == logits.sizes().slice(1),
              kMutualInformation,
              ": expected mean_probs [",
              logits.size(1),
              "], got ",
              mean_probs.defined() ? mean_probs.sizes() : at::IntArrayRef{});
  if (!has_kernel(logits)) {
    return mutual_information_ref(logits, counted, mean_probs, n_tokens);
  }
  return MutualInformation::apply(
      logits.contiguous(), optional(contiguous(counted)), optional(mean_probs), n_tokens);
}

at::Tensor sum_softmax(const at::Tensor& logits, const at::Tensor& counted) {
  check(logits, counted);
  if (!has_kernel(logits)) {
    const auto rows =
        counted.defined() ? logits.index_select(0, counted.nonzero().squeeze(1)) : logits;
    return at::softmax(rows.detach(), -1).sum(0);
  }
  return sums_of(logits.detach().contiguous(), contiguous(counted))
      .narrow(0, 0, logits.size(1))
      .to(logits.scalar_type());
}

}  // namespace dsmoe
