#include "cli/run_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "common/counts.h"
#include "common/log.h"
#include "common/machine.h"
#include "common/thousands.h"
#include "train/log_table.h"

namespace dsmoe {
namespace {

constexpr double kBearableRise = 0.01;  // of perplexity, for the policy that the footer proposes

void print_line(const std::string& label, const std::string& text) {
  print_note(as_text({label, text}));
}

std::string counted(int64_t count, const std::string& noun) {
  return fmt::format(
      "{} {}{}", group_thousands(static_cast<double>(count)), noun, count == 1 ? "" : "s");
}

std::string start_text(const RunSummary& summary) {
  const auto& start = summary.start;
  if (!start.resumed_from.empty()) {
    return fmt::format("resumed at step {} from {}",
                       group_thousands(static_cast<double>(start.step)),
                       start.resumed_from);
  }
  return summary.init_from.empty() ? "new" : "new, with the weights of " + summary.init_from;
}

void add_policies(std::vector<RunLine>& lines, const RunSummary& summary) {
  const auto whole = static_cast<double>(summary.parameters.non_embedding());
  for (const auto& [policy, active] : summary.policies) {
    const auto text =
        active ? fmt::format(
                     "{:>13} active, {:5.1f} %", group_thousands(*active), 100 * *active / whole)
               : std::string("    as many as the text needs: each validation counts them");
    lines.push_back({"", fmt::format("{:<16}{}", policy, text)});
  }
}

void add_data(std::vector<RunLine>& lines, const RunSummary& summary) {
  const auto& corpora = summary.corpora;
  const bool single = corpora.size() == 1;
  lines.push_back(
      {"data",
       fmt::format("{} of {}, {:.3g} epochs",
                   counted(summary.data_tokens, "token"),
                   single ? corpora.front().path : fmt::format("{} corpora", corpora.size()),
                   summary.epochs)});
  for (size_t i = 0; !single && i < corpora.size(); ++i) {
    lines.push_back({"",
                     fmt::format("{}: {}, {:.3g} epochs",
                                 corpora[i].path,
                                 counted(corpora[i].tokens, "token"),
                                 corpora[i].epochs)});
  }
}

// As the shell reads it.
std::string quoted(const std::string& text) {
  const bool is_plain = !text.empty() && text.find_first_not_of(
                                             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                             "0123456789_-+=./:,@%") == std::string::npos;
  if (is_plain) return text;
  std::string shown = "'";
  for (const char c : text) shown += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return shown + "'";
}

// The policy with the fewest parameters whose perplexity is nearly that of the first.
std::string proposed_policy(const TrainResult& result) {
  const ValidationScore* best = nullptr;
  for (const auto& score : result.validations) {
    const bool is_near = std::expm1(score.loss - result.validations.front().loss) <= kBearableRise;
    if (is_near && (best == nullptr || score.active_parameters < best->active_parameters)) {
      best = &score;
    }
  }
  return best == nullptr || best->active_share >= 1 ? "" : best->policy;
}

std::string score_text(const ValidationScore& score) {
  auto text =
      fmt::format("validation loss {:.4f}, perplexity {:.4g}", score.loss, score.perplexity());
  if (score.bits_per_byte) text += fmt::format(", {:.4f} bits/byte", *score.bits_per_byte);
  if (score.active_share < 1) text += fmt::format(", {:.1f} % active", 100 * score.active_share);
  return text;
}

void print_losses(const TrainResult& result) {
  if (result.last) print_line("loss", fmt::format("training {:.4f}", result.last->loss));
  size_t width = 0;
  for (const auto& score : result.validations) width = std::max(width, score.policy.size());
  for (const auto& score : result.validations) {
    print_line("", fmt::format("{:<{}}  {}", score.policy, width, score_text(score)));
  }
  if (result.validations.empty() && result.validation_loss) {
    print_line("", fmt::format("validation {:.4f}", *result.validation_loss));
  }
  if (result.best_step > 0) {
    print_line(
        "best",
        fmt::format("validation loss {:.4f} at step {}", result.best_loss, result.best_step));
  }
}

}  // namespace

std::string as_text(const RunLine& line) {
  return fmt::format("{:<12}{}\n", line.label, line.text);
}

std::vector<RunLine> run_lines(const RunSummary& summary) {
  std::vector<RunLine> lines;
  lines.push_back({"run", fmt::format("{}, {}", summary.run_dir, start_text(summary))});
  lines.push_back(
      {"model",
       fmt::format("{}, {} of them not in embeddings",
                   counted(summary.parameters.total(), "parameter"),
                   group_thousands(static_cast<double>(summary.parameters.non_embedding())))});
  add_policies(lines, summary);
  add_data(lines, summary);
  lines.push_back({"validation", summary.validation.empty() ? "none" : summary.validation});
  lines.push_back({"steps",
                   fmt::format("{} of {} ({} x {} sequences of {}), {} tokens in all",
                               group_thousands(static_cast<double>(summary.steps)),
                               counted(summary.tokens_per_step, "token"),
                               summary.accumulation,
                               summary.batch_size,
                               summary.context,
                               short_count(static_cast<double>(summary.total_tokens)))});
  lines.push_back(
      {"machine",
       fmt::format("{}, {}, {}; {}, {}",
                   summary.device == "cpu" ? cpu_model() : summary.device,
                   name_of(cpu_isa()),
                   summary.dtype,
                   counted(summary.ranks, "rank"),
                   counted(summary.threads, "thread") + (summary.ranks > 1 ? " each" : ""))});
  return lines;
}

void print_run_header(const RunSummary& summary) {
  for (const auto& line : run_lines(summary)) print_note(as_text(line));
  print_line("config", summary.run_dir + "/config.yaml");
  print_note("\n");
}

void print_run_footer(const RunSummary& summary, const TrainResult& result) {
  print_note("\n");
  print_line(result.stopped ? "stopped" : "done",
             fmt::format("step {} of {}, {} tokens, {} of wall time",
                         group_thousands(static_cast<double>(result.step)),
                         group_thousands(static_cast<double>(summary.steps)),
                         short_count(static_cast<double>(result.tokens)),
                         format_duration(result.seconds)));
  print_losses(result);
  if (!result.checkpoint.empty()) print_line("checkpoint", result.checkpoint);
  if (result.stopped) {
    print_line("next", "the same command goes on from here");
    return;
  }
  const auto policy = proposed_policy(result);
  const auto option = policy.empty() ? "" : " --policy " + quoted(policy);
  const auto command = [&](const char* name) {
    return fmt::format("{} {} {}", quoted(program_invocation_name), name, quoted(summary.run_dir));
  };
  const auto text = summary.validation.empty() ? "TEXT" : quoted(summary.validation);
  print_line("next", fmt::format("{} --data {}{}", command("eval"), text, option));
  print_line("", fmt::format("{} --prompt 'The'{}", command("generate"), option));
}

}  // namespace dsmoe
