// The loss of a published model on 50 stories, against two other programs' sum.
#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/io.h"
#include "data/tokenizer_files.h"
#include "eval/perplexity.h"
#include "model/io/model_source.h"
#include "model/packed_weights.h"
#include "support/shared_data.h"
#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

const std::string kFolder = "models/stories260K/";

// The stories and what other programs say of them.
struct Stories {
  EvalText documents;
  double nats = 0;
  int64_t n_tokens = 0;
};

// The first n; none where the data is not there.
Stories read_stories(size_t n) {
  const auto path = shared_data("tinystories/TinyStories-train-first-2MiB.txt");
  if (shared_data(kFolder + "stories260K.bin").empty() || path.empty()) return {};
  const auto reference = nlohmann::json::parse(
      read_file(posix_io(), shared_data(kFolder + "reference.json"), 1 << 20));
  const auto text = read_file(posix_io(), path, 1 << 22);
  constexpr std::string_view kEnd = "<|endoftext|>";
  size_t end = 0;
  Stories stories;
  const auto& numbers = reference["tinystories_nll"]["per_story_tokens_and_nll_first"];
  for (size_t i = 0; i < n; ++i) {
    const auto& story = numbers.at(i);
    end = text.find(kEnd, end) + kEnd.size();
    stories.n_tokens += story[0].get<int64_t>();
    stories.nats += story[1].get<double>();
  }
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("stories.txt"), text.substr(0, end));
  const auto tokenizer = make_tokenizer(shared_data(kFolder + "tok512.model"), {});
  stories.documents =
      read_eval_text(directory.file("stories.txt"), *tokenizer, /*documents=*/true, 512);
  REQUIRE(stories.documents.sequences.size() == n);
  return stories;
}

Transformer read_model() {
  return instantiate(open_llama2c(posix_io(), shared_data(kFolder + "stories260K.bin")));
}

}  // namespace

TEST_CASE("stories260K: the loss of each document from BOS is the published one",
          "[eval][stories]") {
  const auto stories = read_stories(50);
  if (stories.documents.sequences.empty()) return;
  auto model = read_model();
  const auto result = evaluate_perplexity(model, stories.documents, {});
  CHECK(result.tokens_scored == stories.n_tokens);
  CHECK(result.nats_per_token() ==
        Approx(stories.nats / static_cast<double>(stories.n_tokens)).margin(1e-5).epsilon(0));
}

TEST_CASE("stories260K: the perplexity of packed weights is that of float32 within 0.5 and 1 %",
          "[eval][stories][packed]") {
  const auto stories = read_stories(12);
  if (stories.documents.sequences.empty()) return;
  const double reference = std::exp(stories.nats / static_cast<double>(stories.n_tokens));
  const auto perplexity = [&](PackedFormat format, at::ScalarType type) {
    auto model = read_model();
    pack_weights(model, {.format = format});
    PerplexityOptions options;
    options.compute_dtype = type;
    return evaluate_perplexity(model, stories.documents, options).perplexity();
  };
  const double wide = perplexity(PackedFormat::kFloat32, at::kFloat);
  CHECK(std::abs(wide / reference - 1) < 1e-4);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    CAPTURE(type);
    CHECK(std::abs(perplexity(PackedFormat::kBfloat16, type) / wide - 1) < 0.005);
    CHECK(std::abs(perplexity(PackedFormat::kInt8, type) / wide - 1) < 0.01);
  }
}

}  // namespace dsmoe
