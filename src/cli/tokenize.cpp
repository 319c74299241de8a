#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <optional>
#include <thread>

#include "cli/command_support.h"
#include "cli/options/tokenize.h"
#include "cli/run_functions.h"
#include "common/interruptible_io.h"
#include "common/progress.h"
#include "common/standard_output.h"
#include "data/tokenize.h"

namespace dsmoe {

int run_tokenize(const TokenizeCommand& command) {
  auto options = command.tokenize;
  std::optional<ProgressBar> bar;
  if (isatty(STDERR_FILENO) != 0) {
    bar.emplace("tokenize", stderr);
    options.progress = [&bar](int64_t done, int64_t total) { bar->show(done, total); };
  }
  options.existing = existing_of(command.force);
  const auto result = tokenize_files(interruptible_io(), options);
  bar.reset();
  if (command.json) {
    print_json({{"tokens", result.n_tokens},
                {"documents", result.n_documents},
                {"bytes", result.n_bytes},
                {"tokenizer", result.tokenizer},
                {"vocab_size", result.vocab_size},
                {"shards", result.shards}});
  } else {
    print_out("{}: {} tokens of {} ({} ids), {} documents, {} bytes, {} shards\n",
              options.out,
              result.n_tokens,
              result.tokenizer,
              result.vocab_size,
              result.n_documents,
              result.n_bytes,
              result.shards.size());
  }
  return 0;
}

}  // namespace dsmoe
