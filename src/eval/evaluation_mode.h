#pragma once

#include "model/transformer.h"

namespace dsmoe {

/// Evaluation mode for a scope: dropout is off.
class EvaluationMode {
 public:
  explicit EvaluationMode(TransformerImpl& model)
      : model_(model), was_training_(model.is_training()) {
    model.eval();
  }
  ~EvaluationMode() { model_.train(was_training_); }
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  TransformerImpl& model_;
  bool was_training_;
};

}  // namespace dsmoe
