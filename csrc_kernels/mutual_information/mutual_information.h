#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace dsmoe {

/// -(1/n_tokens) sum_t KL(p_t || mean), with p_t the softmax of a row, in one pass over the logits.
/// The closed-form gradient takes another pass; it treats the mean as a constant.
///
/// logits      [n_rows, n_experts], float32 or float64
/// counted     [n_rows] bool, or undefined: every row counts
/// mean_probs  [n_experts]; undefined: the mean of p_t over the counted rows
/// n_tokens    divisor of the sum; 0: the number of counted rows
/// returns     a scalar of the type of logits; 0 where no row counts
/// Throws c10::Error if shapes or types disagree. Source: arXiv:2404.05567, equations 4 to 6.
at::Tensor mutual_information(const at::Tensor& logits,
                              const at::Tensor& counted,
                              const at::Tensor& mean_probs,
                              int64_t n_tokens);

/// Sum of the counted rows' softmax, [n_experts] in the type of logits, without gradient.
at::Tensor sum_softmax(const at::Tensor& logits, const at::Tensor& counted);

/// Reference implementation of mutual_information in differentiable ATen calls.
at::Tensor mutual_information_ref(const at::Tensor& logits,
                                  const at::Tensor& counted,
                                  const at::Tensor& mean_probs,
                                  int64_t n_tokens);

}  // namespace dsmoe
