#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/transformer.h"

namespace dsmoe {

/// One tensor of a foreign file, tied to the model's own: its parts are views of parameters, so the
/// same link writes the file and reads it back.
struct TensorLink {
  std::string name;               // in the file
  std::vector<at::Tensor> parts;  // of the file tensor's shape but for the length along `axis`
  int64_t axis = 0;               // along which the parts stand one after another
  bool is_constant = false;       // the model has no such tensor; parts hold what the target wants
  bool stays_float32 = false;     // whatever type the file's matrices have
  double first_factor = 1.0;      // the first part stands in the file times this
};

/// The tensor as the file has it, contiguous.
at::Tensor gather(const TensorLink& link, at::ScalarType dtype);

/// Fills the parts from a tensor of the file, or compares a constant with it. Throws Error naming
/// the tensor if shape or constant differ, or parts that are one parameter get two values.
void scatter(const TensorLink& link, const at::Tensor& value);

/// Throws Error naming the tensors of a file that no link has, and those that the file lacks.
void check_names(const std::vector<TensorLink>& links,
                 const std::vector<std::string>& names,
                 const std::string& path);

/// Throws Error naming a parameter of the model that no link holds: nothing is dropped in silence.
void check_every_parameter_is_linked(const Transformer& model,
                                     const std::vector<TensorLink>& links);

/// The model's parameters by name, without history.
class Parameters {
 public:
  explicit Parameters(const Transformer& model);
  /// Of one block: `blocks_LAYER.name`. Throws Error if there is none.
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
