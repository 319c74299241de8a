// The loss of a published model on 50 stories, against two other programs' sum.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "common/io.h"
#include "data/tokenizer_files.h"
#include "eval/perplexity.h"
#include "model/io/model_source.h"
#include "support/shared_data.h"
#include "support/temporary_directory.h"

namespace dsmoe {

TEST_CASE("stories260K: the loss of each document from BOS is the published one",
          "[eval][stories]") {
  const std::string folder = "models/stories260K/";
  const auto model_path = shared_data(folder + "stories260K.bin");
  const auto stories_path = shared_data("tinystories/TinyStories-train-first-2MiB.txt");
  if (model_path.empty() || stories_path.empty()) return;
  const auto reference =
      nlohmann::json::parse(read_file(posix_io(), shared_data(folder + "reference.json"), 1 << 20));
  const auto& stories = reference["tinystories_nll"]["per_story_tokens_and_nll_first"];
  const auto text = read_file(posix_io(), stories_path, 1 << 22);
  constexpr std::string_view kEnd = "<|endoftext|>";
  size_t end = 0;
  double nats = 0;
  int64_t n_tokens = 0;
  for (const auto& story : stories) {
    end = text.find(kEnd, end) + kEnd.size();
    n_tokens += story[0].get<int64_t>();
    nats += story[1].get<double>();
  }
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("stories.txt"), text.substr(0, end));
  const auto tokenizer = make_tokenizer(shared_data(folder + "tok512.model"), {});
  const auto documents =
      read_eval_text(directory.file("stories.txt"), *tokenizer, /*documents=*/true, 512);
  REQUIRE(documents.sequences.size() == stories.size());
  auto model = instantiate(open_llama2c(posix_io(), model_path));
  const auto result = evaluate_perplexity(model, documents, {});
  CHECK(result.tokens_scored == n_tokens);
  CHECK(result.nats_per_token() ==
        Approx(nats / static_cast<double>(n_tokens)).margin(1e-5).epsilon(0));
}

}  // namespace dsmoe
