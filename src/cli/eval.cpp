#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "cli/command_support.h"
#include "cli/eval_result.h"
#include "cli/expert_tables.h"
#include "cli/options/eval.h"
#include "cli/run_functions.h"
#include "common/error.h"
#include "common/log.h"
#include "common/progress.h"
#include "common/standard_output.h"
#include "common/stop_signal.h"
#include "eval/divergence.h"
#include "eval/expert_statistics.h"
#include "eval/multiple_choice.h"
#include "eval/perplexity.h"
#include "model/moe/batch_dependence.h"

namespace dsmoe {
namespace {

std::optional<int64_t> count_for(const std::string& words, const EvalText& text) {
  if (words.empty()) return std::nullopt;
  if (words == "auto") {
    if (text.n_words == 0) {
      throw Error("--words: auto needs a text file, as shards hold no words; give their number");
    }
    return text.n_words;
  }
  int64_t n_words = 0;
  const auto* end = words.data() + words.size();
  const auto [stop, error] = std::from_chars(words.data(), end, n_words);
  if (error != std::errc{} || stop != end || n_words < 1) {
    throw Error(fmt::format("--words: expected auto or a number above 0, got '{}'", words));
  }
  return n_words;
}

struct Words {
  int64_t count = 0;
  double perplexity = 0;
};

void print_text(const EvalReport& report,
                const std::vector<TextQuality>& texts,
                const std::optional<Words>& words) {
  const auto& quality = report.quality;
  print_out("policy {} ({} execution, {}{}), window {}, stride {}, {}\n",
            report.policy,
            report.execution,
            report.dtype,
            report.dtype_reason.empty() ? "" : ": " + report.dtype_reason,
            report.protocol.window,
            report.protocol.stride,
            report.bos ? "each document from BOS" : "no BOS");
  if (report.depends_on_batch) print_batch_dependence(report.batch);
  if (texts.size() > 1) print_texts(texts, report);
  print_out("perplexity {:.4f} | {:.4f} nats per token over {} tokens | {:.4f} bits per byte\n",
            quality.perplexity(),
            quality.nats_per_token(),
            quality.tokens_scored,
            quality.bits_per_byte());
  if (words) print_out("word perplexity {:.4f} over {} words\n", words->perplexity, words->count);
  const auto experts = active_experts_text(report.active);
  print_out("{}active parameters {:.0f} of {} ({:.1f} %) | {:.0f} tok/s\n",
            experts.empty() ? "" : fmt::format("active experts per token: {} | ", experts),
            report.active_parameters,
            report.parameters.non_embedding(),
            100 * report.active_share(),
            report.tokens_per_second());
  const auto print_layers = [](const char* kind, const std::vector<double>& active) {
    std::vector<std::string> counts;
    for (const double count : active) counts.push_back(fmt::format("{:.2f}", count));
    if (!counts.empty()) print_out("{} by layer: {}\n", kind, fmt::join(counts, " "));
  };
  print_layers("moe", report.active.moe);
  print_layers("moa", report.active.moa);
}

// The checkpoint to compare with: another, or the same under another policy.
std::optional<LoadedCheckpoint> load_reference(const EvalCommand& options,
                                               const LoadedCheckpoint& loaded) {
  if (options.against.empty() && options.against_policy.empty()) return std::nullopt;
  auto model = options.model;
  model.policy = options.against_policy;
  model.dtype = loaded.dtype;  // a default of its own would add a difference of rounding
  if (!options.against.empty()) model.checkpoint = options.against;
  auto reference = load_checkpoint(model);
  if (reference.tokenizer->fingerprint() != loaded.tokenizer->fingerprint()) {
    throw Error(fmt::format("--against: expected a checkpoint with tokenizer {}, got {}",
                            loaded.tokenizer->fingerprint(),
                            reference.tokenizer->fingerprint()));
  }
  return reference;
}

// How far the predictions are from the reference's.
nlohmann::ordered_json to_json(const Divergence& divergence, const LoadedCheckpoint& reference) {
  return {{"checkpoint", reference.checkpoint.directory},
          {"policy", reference.plan.to_string()},
          {"depends_on_batch", depends_on_batch(reference.plan, reference.model->config())},
          {"perplexity", divergence.reference.perplexity()},
          {"kl_divergence", divergence.kl_per_token()},
          {"kl_divergence_max", divergence.kl_max},
          {"top1_agreement", divergence.top1_agreement()}};
}

void print_text(const Divergence& divergence, const LoadedCheckpoint& reference) {
  print_out(
      "against {} under {} (perplexity {:.4f}): KL divergence {:.6g} nats per token, at most "
      "{:.4g}; the same most likely token for {:.2f} %\n",
      reference.checkpoint.directory,
      reference.plan.to_string(),
      divergence.reference.perplexity(),
      divergence.kl_per_token(),
      divergence.kl_max,
      100 * divergence.top1_agreement());
}

int eval_text(const EvalCommand& options, LoadedCheckpoint& loaded) {
  auto reference = load_reference(options, loaded);
  auto protocol = options.protocol;
  const int64_t context = reference ? std::min(loaded.model->config().max_seq_len,
                                               reference->model->config().max_seq_len)
                                    : loaded.model->config().max_seq_len;
  if (protocol.window == 0) protocol.window = context;
  EvalText text;
  for (const auto& path : options.data) {
    append_group(
        text, read_eval_text(path, *loaded.tokenizer, protocol.documents, context, options.format));
  }
  const auto n_words = count_for(options.words, text);
  install_stop_signal();
  ExpertStatistics experts;
  const auto bar = progress_on_terminal("eval");
  PerplexityOptions how{.window = protocol.window,
                        .stride = protocol.stride,
                        .batch = options.batch,
                        .plan = loaded.plan,
                        .compute_dtype = loaded.compute_dtype,
                        .stop = stop_requested};
  if (bar) how.on_progress = [&](int64_t done, int64_t all) { bar->show(done, all); };
  if (options.experts) {
    how.on_pass = [&](const ModelOutput& output, const EvalBatch& batch) {
      experts.add(output, batch);
    };
  }
  Divergence divergence;
  if (reference) {
    divergence = compare_predictions({loaded.model, loaded.plan, loaded.compute_dtype},
                                     {reference->model, reference->plan, reference->compute_dtype},
                                     text,
                                     how);
  } else {
    divergence.model = evaluate_perplexity(loaded.model, text, how);
  }
  if (bar) bar->clear();
  const auto& result = divergence.model;
  const auto texts = qualities_of_texts(result, options.data, loaded.model->config());
  const auto report =
      make_eval_report(result, loaded, loaded.plan, options.model, protocol, options.batch);
  std::optional<Words> words;
  if (n_words) {
    words = {*n_words, std::exp(result.nats_total / static_cast<double>(*n_words))};
  }
  std::optional<ExpertReport> expert_report;
  if (options.experts) expert_report = make_expert_report(experts, options.data, *loaded.tokenizer);
  if (options.json) {
    auto json = to_json(report);
    for (const auto& one : texts) json["texts"].push_back(to_json(one));
    if (reference) json["against"] = to_json(divergence, *reference);
    if (words) {
      json["words"] = words->count;
      json["word_perplexity"] = words->perplexity;
    }
    if (expert_report) json["experts"] = to_json(*expert_report);
    print_json(json);
  } else {
    print_text(report, texts, words);
    if (reference) print_text(divergence, *reference);
    if (expert_report) print_text(*expert_report);
  }
  return result.complete ? 0 : kExitStopped;
}

void write_items(const EvalCommand& options, const ChoiceResult& result) {
  std::string lines;
  for (const auto& item : result.items) {
    const auto line = item.error.empty()
                          ? nlohmann::ordered_json({{"log_likelihoods", item.log_likelihoods},
                                                    {"greedy", item.are_greedy},
                                                    {"right", item.is_right},
                                                    {"right_normalised", item.is_right_per_byte}})
                          : nlohmann::ordered_json({{"error", item.error}});
    lines += line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
  write_output_file(posix_io(), options.out, lines, existing_of(options.force));
}

void print_accuracy(const std::string& name, const Accuracy& accuracy) {
  print_out("{:<24} {:>6.2f} % of {} ({:.2f} to {:.2f} at 95 % confidence)\n",
            name,
            100 * accuracy.share(),
            accuracy.n_items,
            100 * accuracy.low(),
            100 * accuracy.high());
}

int eval_choices(const EvalCommand& options, LoadedCheckpoint& loaded) {
  if (!options.out.empty()) check_output_file(options.out, existing_of(options.force));
  const auto items = read_choice_items(posix_io(), options.choices);
  install_stop_signal();
  const auto bar = progress_on_terminal("eval");
  const auto result = answer_choices(loaded.model,
                                     *loaded.tokenizer,
                                     items,
                                     {.batch = options.batch,
                                      .plan = loaded.plan,
                                      .compute_dtype = loaded.compute_dtype,
                                      .stop = stop_requested,
                                      .on_progress = [&](int64_t done, int64_t all) {
                                        if (bar) bar->show(done, all);
                                      }});
  if (bar) bar->clear();
  const auto errors = result.errors();
  const bool complete = result.items.size() == items.size();
  // Nothing was done: bad input, not a part of a result.
  if (complete && errors.size() == items.size()) throw Error(errors.front());
  for (const auto& error : errors) print_note(fmt::format("left out: {}\n", error));
  if (!options.out.empty()) write_items(options, result);
  const bool depends = depends_on_batch(loaded.plan, loaded.model->config());
  if (options.json) {
    auto json = choices_to_json(result, items.size());
    json["batch"] = options.batch;
    json["depends_on_batch"] = depends;
    print_json(json);
  } else {
    if (depends) print_batch_dependence(options.batch);
    print_accuracy("accuracy", result.accuracy);
    print_accuracy("accuracy per byte", result.accuracy_per_byte);
    for (const auto& [group, accuracy] : result.by_group) print_accuracy(group, accuracy);
  }
  if (!complete) return kExitStopped;
  if (errors.empty()) return 0;
  throw RunError(fmt::format("{}: {} of {} items could not be scored; the first is {}",
                             options.choices,
                             errors.size(),
                             items.size(),
                             errors.front()));
}

}  // namespace

int run_eval(const EvalCommand& options) {
  if (options.data.empty() == options.choices.empty()) {
    throw Error("eval: expected --data or --choices, got " +
                std::string(options.data.empty() ? "neither" : "both"));
  }
  const bool compares = !options.against.empty() || !options.against_policy.empty();
  if (options.data.empty() && compares) {
    throw Error("eval: expected --data with --against, got --choices");
  }
  if (options.experts && (options.data.empty() || compares)) {
    throw Error("eval: expected --data alone with --experts, got --choices or --against");
  }
  auto loaded = load_checkpoint(options.model);
  const auto& config = loaded.model->config();
  if (options.experts && config.ffn.kind == FfnKind::kDense &&
      config.attention.kind == AttentionKind::kDense) {
    throw Error("--experts: expected a model with experts, got a dense one");
  }
  return options.data.empty() ? eval_choices(options, loaded) : eval_text(options, loaded);
}

}  // namespace dsmoe
