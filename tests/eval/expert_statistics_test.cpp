#include "eval/expert_statistics.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "support/tiny_model.h"

namespace dsmoe {
namespace {

constexpr int32_t kBoundary = 256;
constexpr int64_t kWindow = 10;

// Three sequences of two groups, of few distinct tokens so that some are frequent.
EvalText statistics_text() {
  EvalText text;
  text.groups = {0, 1, 0};
  for (const int64_t length : {90, 70, 13}) {
    auto& sequence = text.sequences.emplace_back();
    for (int64_t i = 0; i < length; ++i) {
      sequence.push_back(i % 19 == 0 ? kBoundary : static_cast<int32_t>((i * i + length) % 23));
    }
  }
  text.unscored_id = kBoundary;
  return text;
}

// What one token did in one layer, from a forward pass of its own context alone.
struct Choice {
  int64_t token;
  size_t group;
  std::set<size_t> experts;
};

std::vector<Choice> choices_one_by_one(Transformer& model,
                                       const EvalText& text,
                                       const RoutingPlan& plan,
                                       const std::function<at::Tensor(const ModelOutput&)>& layer) {
  const at::NoGradGuard no_grad;
  std::vector<Choice> choices;
  for (size_t s = 0; s < text.sequences.size(); ++s) {
    const auto& sequence = text.sequences[s];
    for (int64_t t = 0; t + 1 < static_cast<int64_t>(sequence.size()); ++t) {
      if (sequence[static_cast<size_t>(t + 1)] == kBoundary) continue;
      const std::vector<int64_t> ids(sequence.begin() + t / kWindow * kWindow,
                                     sequence.begin() + t + 1);
      const auto output = model->forward(at::tensor(ids, at::kLong).unsqueeze(0), plan);
      const auto selected = layer(output)[0][-1];
      auto& choice = choices.emplace_back(Choice{ids.back(), text.groups[s], {}});
      for (int64_t i = 0; i < selected.size(0); ++i) {
        if (selected[i].item<bool>()) choice.experts.insert(static_cast<size_t>(i));
      }
    }
  }
  return choices;
}

double share_of(const std::vector<Choice>& choices, const std::function<bool(const Choice&)>& is) {
  return static_cast<double>(std::count_if(choices.begin(), choices.end(), is)) /
         static_cast<double>(choices.size());
}

void check_co_activation(const std::vector<std::vector<double>>& got,
                         const std::vector<Choice>& choices) {
  for (size_t i = 0; i < got.size(); ++i) {
    for (size_t j = 0; j < got.size(); ++j) {
      CAPTURE(i, j);
      const double p_i = share_of(choices, [&](auto& c) { return c.experts.count(i) == 1; });
      const double p_j = share_of(choices, [&](auto& c) { return c.experts.count(j) == 1; });
      const double both =
          share_of(choices, [&](auto& c) { return c.experts.count(i) + c.experts.count(j) == 2; });
      if (p_i * p_j == 0) {
        CHECK(std::isnan(got[i][j]));
      } else {
        CHECK(got[i][j] == Approx(both / (p_i * p_j)));
      }
    }
  }
}

void check_typical_tokens(const ExpertStatistics& statistics,
                          const LayerSelections& layer,
                          const std::vector<Choice>& choices) {
  constexpr int64_t kMinCount = 4;
  for (size_t expert = 0; expert < layer.together.size(); ++expert) {
    const double p_expert =
        share_of(choices, [&](auto& c) { return c.experts.count(expert) == 1; });
    const auto got = statistics.typical_tokens(layer, expert, 1000, kMinCount);
    size_t n_expected = 0;
    for (int64_t id = 0; id <= kBoundary; ++id) {
      const double p_token = share_of(choices, [&](auto& c) { return c.token == id; });
      const double p_both =
          share_of(choices, [&](auto& c) { return c.token == id && c.experts.count(expert) == 1; });
      const auto count = std::llround(p_token * static_cast<double>(choices.size()));
      if (count < kMinCount || p_both == 0) continue;
      ++n_expected;
      const auto it = std::find_if(got.begin(), got.end(), [&](auto& t) { return t.id == id; });
      REQUIRE(it != got.end());
      CHECK(it->count == count);
      CHECK(it->lift == Approx(p_both / (p_token * p_expert)));
    }
    CHECK(got.size() == n_expected);
    CHECK(std::is_sorted(got.begin(), got.end(), [](auto& a, auto& b) { return a.lift > b.lift; }));
    const auto best = statistics.typical_tokens(layer, expert, 2, kMinCount);
    REQUIRE(best.size() == std::min<size_t>(2, n_expected));
    for (size_t i = 0; i < best.size(); ++i) CHECK(best[i].id == got[i].id);
  }
}

// By entropies: I(group; expert) = H(group) + H(expert) - H(group, expert), over selections.
void check_specialisation(const Specialisation& got, const std::vector<Choice>& choices) {
  std::map<std::pair<size_t, size_t>, double> joint;
  std::map<size_t, double> groups, experts;
  double n = 0;
  for (const auto& choice : choices) {
    for (const size_t expert : choice.experts) {
      ++joint[{choice.group, expert}], ++groups[choice.group], ++experts[expert], ++n;
    }
  }
  const auto entropy = [&](const auto& counts) {
    double sum = 0;
    for (const auto& [key, count] : counts) sum -= count / n * std::log(count / n);
    return sum;
  };
  CHECK(got.mutual_information ==
        Approx(entropy(groups) + entropy(experts) - entropy(joint)).margin(1e-12));
  REQUIRE(got.kl.size() == groups.size());
  double weighted = 0;
  for (const auto& [group, count] : groups) {
    double kl = 0;
    for (const auto& [key, both] : joint) {
      if (key.first == group) kl += both / count * std::log(both * n / count / experts[key.second]);
    }
    CHECK(got.kl[group] == Approx(kl).margin(1e-12));
    weighted += got.kl[group] * count / n;
  }
  CHECK(weighted == Approx(got.mutual_information).margin(1e-12));
}

ExpertStatistics statistics_of(Transformer& model,
                               const EvalText& text,
                               PerplexityOptions options) {
  ExpertStatistics statistics;
  options.on_pass = [&](const ModelOutput& output, const EvalBatch& batch) {
    statistics.add(output, batch);
  };
  evaluate_perplexity(model, text, options);
  return statistics;
}

}  // namespace

TEST_CASE("expert statistics equal a count of tokens, each from a pass of its own") {
  auto model = make_tiny_model();
  model->eval();
  const auto text = statistics_text();
  const auto plan = parse_routing_plan("moe:top_k=2;moa:threshold=0.33");
  for (const int64_t batch : {1, 3}) {
    CAPTURE(batch);
    const auto statistics =
        statistics_of(model, text, {.window = kWindow, .batch = batch, .plan = plan});
    REQUIRE(statistics.moe().size() == 2);
    REQUIRE(statistics.moa().size() == 2);
    for (size_t i = 0; i < 4; ++i) {
      CAPTURE(i);
      const auto& layer = i < 2 ? statistics.moe()[i] : statistics.moa()[i - 2];
      const auto choices = choices_one_by_one(model, text, plan, [&](const ModelOutput& output) {
        return i < 2 ? output.moe[i].selected : output.moa[i - 2].selected;
      });
      REQUIRE(statistics.n_tokens() == static_cast<int64_t>(choices.size()));
      const double of_second = share_of(choices, [](auto& c) { return c.group == 1; });
      CHECK(statistics.tokens_of_groups()[1] ==
            std::llround(of_second * static_cast<double>(choices.size())));
      check_co_activation(statistics.co_activation(layer), choices);
      check_typical_tokens(statistics, layer, choices);
      check_specialisation(specialisation(layer), choices);
    }
  }
}

TEST_CASE("expert statistics of parts of a text add to those of the whole") {
  auto model = make_tiny_model();
  const auto text = statistics_text();
  PerplexityOptions options{.window = kWindow, .plan = RoutingPolicy::top_k(2)};
  const auto whole = statistics_of(model, text, options);
  ExpertStatistics sum;
  options.n_parts = 3;
  for (options.part = 0; options.part < 3; ++options.part) {
    sum.add(statistics_of(model, text, options));
  }
  CHECK(sum.n_tokens() == whole.n_tokens());
  CHECK(sum.tokens_of_groups() == whole.tokens_of_groups());
  for (size_t i = 0; i < 2; ++i) {
    CHECK(sum.moe()[i].together == whole.moe()[i].together);
    CHECK(sum.moe()[i].by_token == whole.moe()[i].by_token);
    CHECK(sum.moa()[i].by_group == whole.moa()[i].by_group);
    CHECK(sum.typical_tokens(sum.moe()[i], 0, 3, 4).size() == 3);
  }
}

TEST_CASE("expert statistics: experts that are never selected together, and groups apart") {
  EvalBatch batch{.tokens = at::tensor({7, 7, 8, 8}, at::kLong).view({2, 2}),
                  .targets = at::tensor({7, 7, 8, 8}, at::kLong).view({2, 2}),
                  .counts = at::ones({2, 2}, at::kBool),
                  .groups = {0, 1}};
  ModelOutput output;
  // Tokens 7 of group 0 take experts 0 and 1, tokens 8 of group 1 expert 2, none takes 3.
  output.moe.resize(1);
  output.moe[0].selected = at::tensor({1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0}, at::kLong)
                               .to(at::kBool)
                               .view({2, 2, 4});
  ExpertStatistics statistics;
  statistics.add(output, batch);
  const auto lifts = statistics.co_activation(statistics.moe()[0]);
  CHECK(lifts[0][1] == 2.0);  // 1/2 against 1/2 * 1/2
  CHECK(lifts[0][2] == 0.0);
  CHECK(std::isnan(lifts[0][3]));
  CHECK(statistics.typical_tokens(statistics.moe()[0], 2, 5, 1).front().id == 8);
  CHECK(statistics.typical_tokens(statistics.moe()[0], 3, 5, 1).empty());
  const auto apart = specialisation(statistics.moe()[0]);
  // Of six selections four are of group 0: what the expert tells is H(4/6, 2/6).
  CHECK(apart.mutual_information ==
        Approx(-(4.0 / 6) * std::log(4.0 / 6) - (2.0 / 6) * std::log(2.0 / 6)));
  CHECK(apart.kl[1] == Approx(std::log(3.0)));
}

}  // namespace dsmoe
