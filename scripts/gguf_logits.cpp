// Compares llama.cpp's logits of a GGUF file with those that `dsmoe export --logits` wrote;
// check_gguf.sh builds it. Usage: gguf_logits MODEL.gguf LOGITS.json
#include <llama.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Difference {
  double max_error = 0;
  double max_logit = 0;
  int same_top = 0;  // positions where both find the same most probable token
  int positions = 0;
};

// Float32 keys and values and no flash attention: llama.cpp's defaults would round.
llama_context* make_context(llama_model* model) {
  auto params = llama_context_default_params();
  params.n_ctx = params.n_batch = params.n_ubatch = 64;
  params.n_threads = params.n_threads_batch = 1;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.type_k = params.type_v = GGML_TYPE_F32;
  return llama_init_from_model(model, params);
}

void compare_row(const float* got, const std::vector<float>& expected, Difference& difference) {
  for (size_t i = 0; i < expected.size(); ++i) {
    difference.max_error = std::max(difference.max_error, std::abs(double{got[i]} - expected[i]));
    difference.max_logit = std::max(difference.max_logit, std::abs(double{expected[i]}));
  }
  const auto top = std::max_element(expected.begin(), expected.end()) - expected.begin();
  difference.same_top += std::max_element(got, got + expected.size()) - got == top;
  ++difference.positions;
}

void compare_sequence(llama_model* model,
                      const std::vector<llama_token>& tokens,
                      const std::vector<std::vector<float>>& expected,
                      Difference& difference) {
  auto* context = make_context(model);
  auto batch = llama_batch_init(static_cast<int>(tokens.size()), 0, 1);
  for (const auto token : tokens) {
    const int i = batch.n_tokens++;
    batch.token[i] = token;
    batch.pos[i] = i;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = 1;
  }
  if (llama_decode(context, batch) != 0) throw std::runtime_error("llama_decode failed");
  for (size_t i = 0; i < expected.size(); ++i) {
    compare_row(llama_get_logits_ith(context, static_cast<int>(i)), expected[i], difference);
  }
  llama_batch_free(batch);
  llama_free(context);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const auto check = nlohmann::json::parse(std::ifstream(argv[2]));
  llama_log_set(
      [](ggml_log_level level, const char* text, void*) {
        if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
      },
      nullptr);
  llama_backend_init();
  auto* model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (model == nullptr) return 1;
  Difference difference;
  const auto tokens = check["tokens"].get<std::vector<std::vector<llama_token>>>();
  const auto logits = check["logits"].get<std::vector<std::vector<std::vector<float>>>>();
  for (size_t i = 0; i < tokens.size(); ++i) {
    compare_sequence(model, tokens[i], logits[i], difference);
  }
  std::printf("%.3g of logits up to %.3g, same first choice at %d of %d positions\n",
              difference.max_error,
              difference.max_logit,
              difference.same_top,
              difference.positions);
  llama_model_free(model);
  return difference.max_error <= 1e-5 * std::max(1.0, difference.max_logit) ? 0 : 1;
}
