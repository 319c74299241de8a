#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <optional>
#include <thread>

#include "cli/command_support.h"
#include "cli/options/tokenize.h"
#include "cli/run_functions.h"
#include "common/error.h"
#include "common/interruptible_io.h"
#include "common/progress.h"
#include "common/share.h"
#include "common/standard_output.h"
#include "data/tokenize.h"

namespace dsmoe {
namespace {

double share_of(const std::string& text) {
  const auto share = parse_share(text);
  if (share && *share > 0 && *share < 1) return *share;
  throw Error(fmt::format(
      "--validation: expected a share such as 5%, above 0 and below 100%, got '{}'", text));
}

nlohmann::ordered_json part_json(const DatasetPart& part) {
  return {{"path", part.path},
          {"tokens", part.n_tokens},
          {"documents", part.n_documents},
          {"bytes", part.n_bytes},
          {"shards", part.shards}};
}

}  // namespace

int run_tokenize(const TokenizeCommand& command) {
  auto options = command.tokenize;
  std::optional<ProgressBar> bar;
  if (isatty(STDERR_FILENO) != 0) {
    bar.emplace("tokenize", stderr);
    options.progress = [&bar](int64_t done, int64_t total) { bar->show(done, total); };
  }
  options.existing = existing_of(command.force);
  if (!command.validation.empty()) options.validation = share_of(command.validation);
  const auto result = tokenize_files(interruptible_io(), options);
  bar.reset();
  if (command.json) {
    nlohmann::ordered_json json = {{"tokens", result.n_tokens},
                                   {"documents", result.n_documents},
                                   {"bytes", result.n_bytes},
                                   {"tokenizer", result.tokenizer},
                                   {"vocab_size", result.vocab_size},
                                   {"shards", result.shards}};
    if (result.parts.size() == 2) {
      json["train"] = part_json(result.parts[0]);
      json["validation"] = part_json(result.parts[1]);
    }
    print_json(json);
  } else {
    for (const auto& part : result.parts) {
      print_out("{}: {} tokens of {} ({} ids), {} documents, {} bytes, {} shards\n",
                part.path,
                part.n_tokens,
                result.tokenizer,
                result.vocab_size,
                part.n_documents,
                part.n_bytes,
                part.shards.size());
    }
  }
  return 0;
}

}  // namespace dsmoe
