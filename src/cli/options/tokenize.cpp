#include "cli/options/tokenize.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <thread>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/options/text_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_tokenize_command(CommandLine& line) {
  auto options = std::make_shared<TokenizeCommand>();
  auto& command = line.subcommand(
      "tokenize",
      "Encode text into token shards.\n"
      "Example: dsmoe tokenize --input corpus.txt --tokenizer train:bpe:4096 --out shards/corpus");
  auto& o = options->tokenize;
  o.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const auto input =
      command.option("--input", o.inputs, fmt::format("encode files of {}", kTextHelp))
          .text_path()
          .required();
  add_text_options(command, o.format, input);
  command
      .option("--tokenizer",
              o.tokenizer,
              "encode with bytes, chars, a SentencePiece .model file, train:bpe:SIZE or "
              "train:unigram:SIZE")
      .path();
  command.option("-o,--out", o.out, "make this directory").path().required();
  command
      .option("--validation",
              options->validation,
              "give this share of the tokens, such as 5%, to OUT/valid and the rest to OUT/train: "
              "whole documents, or the end of a single one")
      .default_text("all in OUT");
  add_force_option(command, options->force);
  command.option("--shard-tokens", o.shard_tokens, "put at most N tokens into one shard")
      .range(int64_t{1}, int64_t{1} << 40);
  command.option("--threads", o.threads, "encode on N threads")
      .range(1, 4096)
      .default_text("all cores");
  add_json_option(command, options->json);
  command.on_run([options] { return run_functions().tokenize(*options); });
}

}  // namespace dsmoe
