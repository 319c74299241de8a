// Loads a checkpoint and completes a prompt greedily, with half of the FFN experts.
// Usage: complete CHECKPOINT PROMPT
#include <common/error.h>
#include <common/io.h>
#include <data/tokenizer_files.h>
#include <infer/engine.h>
#include <model/io/checkpoint_reader.h>

#include <cstdio>
#include <exception>
#include <string>

namespace {

void complete(const std::string& path, const std::string& prompt) {
  auto& io = dsmoe::posix_io();
  const auto checkpoint = dsmoe::find_checkpoint(io, path);
  const auto model = dsmoe::load_model(io, checkpoint);
  const auto tokenizer = dsmoe::load_tokenizer(io, checkpoint.directory);
  const auto half = dsmoe::RoutingPolicy::top_k(model->config().ffn.n_experts / 2);
  dsmoe::EngineOptions options;
  options.plan =
      dsmoe::RoutingPlan(dsmoe::LayerRouting{.moa = dsmoe::RoutingPolicy::all(), .moe = half});
  dsmoe::GenerateRequest request;
  request.prompt = tokenizer->encode_with_bos(prompt);
  request.max_tokens = 8;
  std::printf("%s\n",
              dsmoe::generate(model, *tokenizer, options, {request}).completions[0].text.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3) throw dsmoe::Error("complete: expected CHECKPOINT and PROMPT");
    complete(argv[1], argv[2]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
