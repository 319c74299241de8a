#include "cli/run_summary_output.h"

#include <fmt/format.h>

#include "common/counts.h"
#include "common/standard_output.h"

namespace dsmoe {
namespace {

using Json = nlohmann::ordered_json;

std::string gib(double bytes) { return fmt::format("{:.2f} GiB", bytes / (1 << 30)); }

std::string count(int64_t value) { return short_count(static_cast<double>(value)); }

Json null_if_unknown(int64_t bytes) { return bytes == 0 ? Json(nullptr) : Json(bytes); }

void print_model(const RunSummary& summary) {
  print_out("model        {} parameters, {} of them in embeddings\n",
            count(summary.parameters.total()),
            count(summary.parameters.embeddings));
  for (const auto& row : summary.policies) {
    const auto active = row.active ? short_count(*row.active) : "a number by the data";
    print_out("  {:<10} {} active a token\n", row.policy, active);
  }
  if (!summary.init_from.empty()) print_out("weights      from {}\n", summary.init_from);
}

void print_data(const RunSummary& summary) {
  print_out("data         {} tokens, {:.3g} epochs\n", count(summary.data_tokens), summary.epochs);
  for (const auto& corpus : summary.corpora) {
    print_out("  {}  {} tokens in {} documents, {:.3g} epochs\n",
              corpus.path,
              count(corpus.tokens),
              corpus.documents,
              corpus.epochs);
  }
  print_out("validation   {}\n", summary.validation.empty() ? "none" : summary.validation);
}

void print_steps(const RunSummary& summary) {
  print_out(
      "steps        {} of {} tokens ({} x {} sequences of {}), {} tokens in all, warm-up {}\n",
      summary.steps,
      summary.tokens_per_step,
      summary.accumulation,
      summary.batch_size,
      summary.context,
      count(summary.total_tokens),
      summary.warmup_steps);
  if (summary.start.resumed_from.empty()) {
    print_out("run          {}, new\n", summary.run_dir);
  } else {
    print_out("run          {}, from step {} ({})\n",
              summary.run_dir,
              summary.start.step,
              summary.start.resumed_from);
  }
}

void print_machine(const RunSummary& summary) {
  const auto& place = summary.place;
  print_out("device       {}, {}, {}, ranks {}, threads {}\n",
            summary.device,
            summary.dtype,
            summary.isa,
            summary.ranks,
            summary.threads);
  print_out("memory       {} of {} ({} free){}\n",
            gib(summary.host_memory_bytes),
            gib(static_cast<double>(place.memory_bytes)),
            gib(static_cast<double>(place.available_memory_bytes)),
            summary.fits_memory() ? "" : ": DOES NOT FIT");
  print_out("checkpoints  {} each, {} kept, {} to write, {} free on the disk{}\n",
            gib(summary.checkpoint_bytes),
            summary.kept_checkpoints,
            gib(summary.checkpoint_disk_bytes),
            gib(static_cast<double>(place.free_disk_bytes)),
            summary.fits_disk() ? "" : ": DO NOT FIT");
}

}  // namespace

void print_summary(const RunSummary& summary) {
  print_model(summary);
  print_data(summary);
  print_steps(summary);
  print_machine(summary);
}

Json summary_json(const RunSummary& summary) {
  Json active = Json::object();
  for (const auto& row : summary.policies) {
    active[row.policy] = row.active ? Json(*row.active) : Json(nullptr);
  }
  Json corpora = Json::array();
  for (const auto& corpus : summary.corpora) {
    corpora.push_back({{"path", corpus.path},
                       {"tokens", corpus.tokens},
                       {"documents", corpus.documents},
                       {"epochs", corpus.epochs}});
  }
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? Json(nullptr) : Json(text);
  };
  return {{"run_dir", summary.run_dir},
          {"init_from", text_or_null(summary.init_from)},
          {"resumed_from", text_or_null(summary.start.resumed_from)},
          {"step", summary.start.step},
          {"parameters_total", summary.parameters.total()},
          {"parameters_embeddings", summary.parameters.embeddings},
          {"parameters_active", active},
          {"data_tokens", summary.data_tokens},
          {"epochs", summary.epochs},
          {"corpora", corpora},
          {"validation", text_or_null(summary.validation)},
          {"context", summary.context},
          {"batch_size", summary.batch_size},
          {"accumulation", summary.accumulation},
          {"tokens_per_step", summary.tokens_per_step},
          {"steps", summary.steps},
          {"warmup_steps", summary.warmup_steps},
          {"tokens", summary.total_tokens},
          {"device", summary.device},
          {"dtype", summary.dtype},
          {"isa", summary.isa},
          {"ranks", summary.ranks},
          {"threads", summary.threads},
          {"memory_bytes", summary.host_memory_bytes},
          {"machine_memory_bytes", null_if_unknown(summary.place.memory_bytes)},
          {"available_memory_bytes", null_if_unknown(summary.place.available_memory_bytes)},
          {"fits_memory", summary.fits_memory()},
          {"checkpoint_bytes", summary.checkpoint_bytes},
          {"kept_checkpoints", summary.kept_checkpoints},
          {"checkpoint_disk_bytes", summary.checkpoint_disk_bytes},
          {"free_disk_bytes", null_if_unknown(summary.place.free_disk_bytes)},
          {"fits_disk", summary.fits_disk()}};
}

}  // namespace dsmoe
