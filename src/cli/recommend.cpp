#include <fmt/format.h>

#include "cli/command_support.h"
#include "cli/options/recommend.h"
#include "cli/run_functions.h"
#include "common/error.h"
#include "common/progress.h"
#include "common/standard_output.h"
#include "common/stop_signal.h"
#include "eval/eval_text.h"
#include "eval/recommendation.h"

namespace dsmoe {
namespace {

// For a shell: in single quotes where the text has other than plain characters.
std::string quoted(const std::string& text) {
  constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=,:+%@";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string inside;
  for (const char c : text) inside += c == '\'' ? "'\\''" : std::string(1, c);
  return "'" + inside + "'";
}

std::string command_of(const RecommendCommand& options, const Recommendation& found) {
  return fmt::format("dsmoe generate {} --policy {} --prompt 'Once upon a time'",
                     quoted(options.model.checkpoint),
                     quoted(found.chosen.plan.to_string()));
}

nlohmann::ordered_json to_json(const PolicyQuality& quality) {
  return {{"policy", quality.plan.to_string()},
          {"perplexity", quality.perplexity},
          {"active_parameters", quality.active_parameters},
          {"share", quality.share},
          {"rise", quality.rise}};
}

nlohmann::ordered_json to_json(const RecommendCommand& options,
                               const Recommendation& found,
                               double rise,
                               const std::string& dtype) {
  auto json = to_json(found.chosen);
  json["reference"] = to_json(found.reference);
  json["limit"] = rise;
  json["tokens_scored"] = found.tokens_scored;
  json["dtype"] = dtype;
  for (const auto& one : found.measured) json["measured"].push_back(to_json(one));
  json["command"] = command_of(options, found);
  return json;
}

void print_text(const RecommendCommand& options, const Recommendation& found) {
  const auto reference = found.reference.plan.to_string();
  print_out("{:<28} {:>17} {:>7} {:>10} {:>9}\n",
            "policy",
            "active parameters",
            "share",
            "perplexity",
            "over " + reference);
  for (const auto& one : found.measured) {
    print_out("{:<28} {:>17.0f} {:>6.1f}% {:>10.4f} {:>{}}\n",
              one.plan.to_string(),
              one.active_parameters,
              100 * one.share,
              one.perplexity,
              fmt::format("{:+.2f}%", 100 * one.rise),
              std::max<size_t>(9, 5 + reference.size()));
  }
  print_out("measured on {} tokens a policy\n\n", found.tokens_scored);
  print_out("{}: {:.1f} % of the parameters, {:+.1f} % perplexity\n",
            found.chosen.plan.to_string(),
            100 * found.chosen.share,
            100 * found.chosen.rise);
  print_out("{}\n", command_of(options, found));
}

}  // namespace

int run_recommend(const RecommendCommand& options) {
  const double rise = parse_share_option("--rise", options.rise);
  if (!options.model.policy.empty()) {
    throw Error("recommend: expected no --policy, since it looks for one; eval measures a policy");
  }
  auto loaded = load_checkpoint(options.model);
  const auto text = read_eval_text(options.data,
                                   *loaded.tokenizer,
                                   /*documents=*/false,
                                   loaded.model->config().max_seq_len,
                                   options.format);
  install_stop_signal();
  const auto bar = progress_on_terminal("recommend");
  RecommendOptions search{.rise = rise,
                          .tokens = options.tokens,
                          .batch = options.batch,
                          .execution = parse_execution(options.model.execution),
                          .compute_dtype = loaded.compute_dtype,
                          .stop = stop_requested};
  if (bar) search.on_progress = [&](int64_t done, int64_t all) { bar->show(done, all); };
  try {
    const auto found = recommend_policy(loaded.model, text, search);
    if (bar) bar->clear();
    if (options.json) {
      print_json(to_json(options, found, rise, loaded.dtype));
    } else {
      print_weights(loaded);
      print_text(options, found);
    }
  } catch (const StoppedError&) {
    return kExitStopped;
  }
  return 0;
}

}  // namespace dsmoe
