#include "eval/multiple_choice.h"

#include <catch2/catch.hpp>
#include <random>

#include "common/error.h"
#include "data/byte_tokenizer.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

std::vector<ChoiceItem> read(const std::string& text) {
  const TemporaryDirectory directory;
  write_file(posix_io(), directory.file("items.jsonl"), text);
  return read_choice_items(posix_io(), directory.file("items.jsonl"));
}

}  // namespace

TEST_CASE("read_choice_items: questions and minimal pairs") {
  const auto items = read(
      "{\"context\": \"1 + 1 =\", \"choices\": [\" 2\", \" 3\", \" 4\"], \"answer\": 0}\n\n"
      "{\"good\": \"a cat sits\", \"bad\": \"a cat sit\", \"group\": \"agreement\"}\n");
  REQUIRE(items.size() == 2);
  CHECK(items[0].context == "1 + 1 =");
  CHECK(items[0].choices == std::vector<std::string>{" 2", " 3", " 4"});
  CHECK(items[1].choices == std::vector<std::string>{"a cat sits", "a cat sit"});
  CHECK(items[1].answer == 0);
  CHECK(items[1].group == "agreement");
}

TEST_CASE("read_choice_items: a line that is none is named in its place; the others are read") {
  for (const std::string line : {"{\"choices\": [\"a\"], \"answer\": 0}",
                                 "{\"choices\": [\"a\", \"b\"], \"answer\": 2}",
                                 "{\"choices\": [\"a\", \"b\"]}",
                                 "{\"good\": \"a\"}",
                                 "not json"}) {
    CAPTURE(line);
    const auto items = read("{\"good\": \"a\", \"bad\": \"b\"}\r\n\r\n" + line +
                            "\n{\"good\": \"c\", \"bad\": \"d\"}\n");
    REQUIRE(items.size() == 3);
    CHECK(items[0].error.empty());
    CHECK(items[0].place.ends_with("items.jsonl:1"));
    CHECK_THAT(items[1].error, Catch::Contains("items.jsonl:3: expected"));
    CHECK(items[2].choices == std::vector<std::string>{"c", "d"});
  }
  REQUIRE_THROWS_WITH(read("[{\"good\": \"a\", \"bad\": \"b\"}]\n"), Catch::Contains("array"));
  REQUIRE_THROWS_AS(read("\n"), Error);
}

TEST_CASE("answer_choices: judges by the likelihoods of the choices, whole and per byte") {
  auto model = make_tiny_model();
  const ByteTokenizer tokenizer;
  std::vector<ChoiceItem> items;
  for (int i = 0; i < 12; ++i) {
    items.push_back({.context = "item " + std::to_string(i),
                     .choices = {" abc", " x", " qwertz"},
                     .answer = i % 4 == 0 ? 2 : 1,
                     .group = i % 2 == 0 ? "even" : ""});
  }
  const auto result = answer_choices(model, tokenizer, items, {});
  REQUIRE(result.items.size() == items.size());
  int64_t n_right = 0;
  int64_t n_right_per_byte = 0;
  int64_t n_right_even = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    std::vector<double> whole;
    std::vector<double> per_byte;
    for (const auto& choice : items[i].choices) {
      const auto one = encode_continuation(tokenizer, items[i].context, choice);
      whole.push_back(score_continuations(model, {one}, {}).front().log_likelihood);
      per_byte.push_back(whole.back() / static_cast<double>(choice.size()));
    }
    for (size_t c = 0; c < whole.size(); ++c) {
      CHECK(result.items[i].log_likelihoods.at(c) == Approx(whole[c]).epsilon(2e-6));
    }
    const auto is_best = [&](const std::vector<double>& scores) {
      return std::max_element(scores.begin(), scores.end()) - scores.begin() == items[i].answer;
    };
    n_right += is_best(whole) ? 1 : 0;
    n_right_per_byte += is_best(per_byte) ? 1 : 0;
    if (i % 2 == 0) n_right_even += is_best(whole) ? 1 : 0;
  }
  CHECK(result.accuracy.n_right == n_right);
  CHECK(result.accuracy_per_byte.n_right == n_right_per_byte);
  CHECK(n_right != n_right_per_byte);  // else the two were not told apart
  REQUIRE(result.by_group.size() == 1);
  CHECK(result.by_group.at("even").n_items == 6);
  CHECK(result.by_group.at("even").n_right == n_right_even);
}

TEST_CASE(
    "answer_choices: an item that does not fit is left out, and the others are as without it") {
  auto model = make_tiny_model();
  const ByteTokenizer tokenizer;
  const ChoiceItem good{.context = "x", .choices = {" a", " bc"}, .answer = 1, .group = "g"};
  const ChoiceItem empty{.context = "x", .choices = {" a", ""}, .group = "g", .place = "q.jsonl:2"};
  const ChoiceItem broken{.place = "q.jsonl:3", .error = "q.jsonl:3: not JSON"};
  const ChoiceItem longer{.context = "x", .choices = {"a", std::string(5000, 'a')}};
  const auto alone = answer_choices(model, tokenizer, {good, good}, {});
  const auto result = answer_choices(model, tokenizer, {good, empty, broken, longer, good}, {});
  REQUIRE(result.items.size() == 5);
  for (const auto& [with, without] : {std::pair(0, 0), std::pair(4, 1)}) {
    const auto& scores = result.items[static_cast<size_t>(with)];
    CHECK(scores.error.empty());
    CHECK(scores.log_likelihoods == alone.items[static_cast<size_t>(without)].log_likelihoods);
  }
  REQUIRE(result.errors().size() == 3);
  CHECK_THAT(result.errors()[0], Catch::Contains("q.jsonl:2: ") && Catch::Contains("one token"));
  CHECK(result.errors()[1] == "q.jsonl:3: not JSON");
  CHECK_THAT(result.errors()[2], Catch::Contains("5000"));
  CHECK(result.accuracy.n_items == 2);
  CHECK(result.by_group.at("g").n_items == 2);
  CHECK(result.accuracy.share() == alone.accuracy.share());
  const auto none = answer_choices(model, tokenizer, {broken}, {});
  CHECK(none.items.size() == 1);
  CHECK(none.accuracy.n_items == 0);
}

TEST_CASE("answer_choices: a tie is not an answer") {
  auto model = make_tiny_model();
  const auto result =
      answer_choices(model, ByteTokenizer(), {{.context = "", .choices = {"same", "same"}}}, {});
  CHECK(result.accuracy.n_right == 0);
}

TEST_CASE("Accuracy: the interval of Wilson's own example, and at the ends") {
  // 81 of 263: 0.2553 to 0.3662; Newcombe, "Two-sided confidence intervals for the single
  // proportion" (1998), table I.
  const Accuracy accuracy{.n_right = 81, .n_items = 263};
  CHECK(accuracy.low() == Approx(0.2553).margin(5e-5));
  CHECK(accuracy.high() == Approx(0.3662).margin(5e-5));
  CHECK(Accuracy{.n_right = 0, .n_items = 10}.low() == Approx(0.0).margin(1e-12));
  CHECK(Accuracy{.n_right = 10, .n_items = 10}.high() == Approx(1.0).margin(1e-12));
}

TEST_CASE("Accuracy: the interval holds the true share in 95 of 100 draws") {
  std::mt19937_64 random(3);
  const double share = GENERATE(0.1, 0.5, 0.8);
  std::binomial_distribution<int64_t> draw(200, share);
  int n_held = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const Accuracy accuracy{.n_right = draw(random), .n_items = 200};
    if (accuracy.low() <= share && share <= accuracy.high()) ++n_held;
  }
  CAPTURE(share);
  CHECK(static_cast<double>(n_held) / kDraws == Approx(0.95).margin(0.01));
}

}  // namespace dsmoe
