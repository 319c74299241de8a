#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <thread>

#include "cli/command_support.h"
#include "cli/commands.h"
#include "cli/text_options.h"
#include "common/interruptible_io.h"
#include "common/progress.h"
#include "common/standard_output.h"
#include "data/tokenize.h"

namespace dsmoe {
namespace {

struct Options {
  TokenizeOptions tokenize;
  bool force = false;
  bool json = false;
};

int tokenize(Options& options) {
  std::optional<ProgressBar> bar;
  if (isatty(STDERR_FILENO) != 0) {
    bar.emplace("tokenize", stderr);
    options.tokenize.progress = [&bar](int64_t done, int64_t total) { bar->show(done, total); };
  }
  options.tokenize.existing = existing_of(options.force);
  const auto result = tokenize_files(interruptible_io(), options.tokenize);
  bar.reset();
  if (options.json) {
    print_json({{"tokens", result.n_tokens},
                {"documents", result.n_documents},
                {"bytes", result.n_bytes},
                {"tokenizer", result.tokenizer},
                {"vocab_size", result.vocab_size},
                {"shards", result.shards}});
  } else {
    print_out("{}: {} tokens of {} ({} ids), {} documents, {} bytes, {} shards\n",
              options.tokenize.out,
              result.n_tokens,
              result.tokenizer,
              result.vocab_size,
              result.n_documents,
              result.n_bytes,
              result.shards.size());
  }
  return 0;
}

}  // namespace

void add_tokenize_command(CommandLine& line) {
  auto options = std::make_shared<Options>();
  auto& command = line.subcommand(
      "tokenize",
      "Encodes text into token shards.\n"
      "Example: dsmoe tokenize --input corpus.txt --tokenizer train:bpe:4096 --out shards/corpus");
  auto& o = options->tokenize;
  o.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const auto input =
      command.option("--input", o.inputs, fmt::format("files of {}", kTextHelp)).path().required();
  add_text_options(command, o.format, input);
  command
      .option("--tokenizer",
              o.tokenizer,
              "bytes, chars, a SentencePiece .model file, train:bpe:SIZE or "
              "train:unigram:SIZE (default: bytes)")
      .path();
  command.option("--out", o.out, "directory to make").path().required();
  add_force_option(command, options->force);
  command.option("--shard-tokens", o.shard_tokens, "most tokens in one shard")
      .range(int64_t{1}, int64_t{1} << 40);
  command.option("--threads", o.threads, "encoding threads").range(1, 4096);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return tokenize(*options); });
}

}  // namespace dsmoe
