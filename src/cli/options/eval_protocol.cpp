#include "cli/options/eval_protocol.h"

namespace dsmoe {

void add_protocol_options(Command& command, EvalProtocol& protocol, int64_t& batch) {
  command.option("--window", protocol.window, "give each forward pass N tokens")
      .default_text("the context");
  command.option("--stride", protocol.stride, "score N new tokens per window")
      .default_text("the window");
  command.flag("--documents", protocol.documents, "score each document alone, cut to the context");
  command
      .option("--batch",
              batch,
              "give each forward pass N windows; changes the numbers of threshold_top_k")
      .range(1, 1 << 20);
}

}  // namespace dsmoe
