#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/staged_output.h"
#include "formats/gguf.h"
#include "formats/special_tokens.h"
#include "model/moe/routing_plan.h"
#include "model/transformer.h"

namespace dsmoe {

struct ExportRequest {
  RoutingPlan plan{RoutingPolicy::all()};  ///< the selection that the written model will use
  at::ScalarType dtype = at::kFloat;       ///< of the written matrices
  SpecialTokens special_tokens = {};       ///< of the tokenizer
  /// Name and bytes of the tokenizer files; written if the target is a directory.
  std::vector<std::pair<std::string, std::string>> files = {};
  Existing existing = Existing::kRefuse;
  GgufMetadata gguf_tokenizer = {};  ///< `tokenizer.ggml.*`; empty: the file declares none
};

/// One foreign file format of a model.
struct ExportTarget {
  std::string name;
  /// Returns the features that the format cannot express, one sentence each; empty: it can be
  /// written.
  std::vector<std::string> (*obstacles)(const ModelConfig& config, const RoutingPlan& plan);
  /// Writes the format to `out`, an empty file or directory; returns the number of tensors.
  int64_t (*write)(Io& io,
                   const Transformer& model,
                   const ExportRequest& request,
                   const std::string& out);
  /// Reads the written files as a model with the arithmetic of the target.
  Transformer (*read)(Io& io, const std::string& out);
  /// Routers and norms are written as float32 for every dtype of the matrices.
  bool keeps_routers_and_norms = false;
  /// Partitioned FFNs are written as dense ones; logits are compared with every gate at 1.
  bool joins_partition = false;
  bool is_one_file = false;
};

const std::vector<ExportTarget>& export_targets();

struct ExportReport {
  int64_t tensors_read = 0;  ///< of the model
  int64_t tensors_written = 0;
  double max_abs_logit_error = 0;  ///< of the files read back against the model, over logit_tokens
  double max_abs_logit = 0;
  /// The model has partitioned FFNs and the files a dense one: the logits are those of every gate
  /// at 1.
  bool joined_partition = false;
  at::Tensor tokens;  // [sequences, seq] int64, the random ones
  at::Tensor logits;  // [sequences, seq, vocab_size], the model's
};

/// Writes a model in a foreign format and verifies it before `out` gets its name. Verification
/// reads the files back and compares their logits over random tokens with those of the model,
/// rounded to the same dtype, under the plan of the request. Throws Error naming every obstacle if
/// the target cannot express the model, and if `out` exists and may not be replaced. Throws
/// RunError for a failed write and for logits that differ by more than 1e-4 of the largest.
ExportReport export_model(Io& io,
                          const Transformer& model,
                          const std::string& target,
                          const ExportRequest& request,
                          const std::string& out);

}  // namespace dsmoe
