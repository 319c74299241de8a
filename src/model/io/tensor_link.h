#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/transformer.h"

namespace dsmoe {

/// Links one tensor of a foreign file to parameters of the model. Its parts are views of
/// parameters, so that the same link writes the file and reads it back.
struct TensorLink {
  std::string name;               // in the file
  std::vector<at::Tensor> parts;  // of the file tensor's shape but for the length along `axis`
  int64_t axis = 0;               // the parts are concatenated along it
  bool is_constant = false;       // not in the model; parts hold the values of the target
  bool stays_float32 = false;     // for every dtype of the matrices
  double first_factor = 1.0;      // the file holds the first part times this
};

/// Returns the tensor of the file, contiguous.
at::Tensor gather(const TensorLink& link, at::ScalarType dtype);

/// Fills the parts from a tensor of the file, or compares a constant with it. Throws Error naming
/// the tensor if the shape or the constant differs, or if two parts of one parameter get different
/// values.
void scatter(const TensorLink& link, const at::Tensor& value);

/// Throws Error naming the tensors of a file without a link and the links without a tensor.
void check_names(const std::vector<TensorLink>& links,
                 const std::vector<std::string>& names,
                 const std::string& path);

/// Throws Error naming a parameter of the model that has no link, so that no parameter is dropped.
void check_every_parameter_is_linked(const Transformer& model,
                                     const std::vector<TensorLink>& links);

/// The parameters of the model by name, detached.
class Parameters {
 public:
  explicit Parameters(const Transformer& model);
  /// The parameter `blocks_LAYER.name` of one block. Throws Error if there is none.
  at::Tensor of_block(int64_t layer, const std::string& name) const;
  at::Tensor at(const std::string& name) const;

 private:
  std::vector<std::pair<std::string, at::Tensor>> parameters_;
};

/// Wide expert weights as one matrix per expert; views. rows: [n_experts * d, d_model] ->
/// [n_experts, d, d_model]; columns: [d_model, n_experts * d] -> [n_experts, d_model, d].
at::Tensor expert_rows(const at::Tensor& wide, int64_t n_experts);
at::Tensor expert_columns(const at::Tensor& wide, int64_t n_experts);

}  // namespace dsmoe
