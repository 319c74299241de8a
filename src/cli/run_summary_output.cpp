#include "cli/run_summary_output.h"

#include <fmt/format.h>

#include "cli/run_text.h"
#include "common/standard_output.h"

namespace dsmoe {
namespace {

using Json = nlohmann::ordered_json;

std::string gib(double bytes) { return fmt::format("{:.2f} GiB", bytes / (1 << 30)); }

Json null_if_unknown(int64_t bytes) { return bytes == 0 ? Json(nullptr) : Json(bytes); }

// What a run needs of a resource that it does not fit into stands out.
std::string needed(double need, int64_t limit, bool fits) {
  return fmt::format(
      "{} of {}{}", gib(need), gib(static_cast<double>(limit)), fits ? "" : ": DOES NOT FIT");
}

std::vector<RunLine> resource_lines(const RunSummary& summary) {
  const auto& place = summary.place;
  std::vector<RunLine> lines{
      {"warm-up", fmt::format("{} steps", summary.warmup_steps)},
      {"memory",
       fmt::format("{}, {} free now",
                   needed(summary.host_memory_bytes, place.memory_bytes, summary.fits_memory()),
                   gib(static_cast<double>(place.available_memory_bytes)))}};
  if (summary.device_memory_bytes > 0) {
    lines.push_back(
        {"GPU memory",
         needed(summary.device_memory_bytes, place.device_memory_bytes, summary.fits_device())});
  }
  lines.push_back({"checkpoints",
                   fmt::format("{} each, {} kept, {} to write, {} free on the disk{}",
                               gib(summary.checkpoint_bytes),
                               summary.kept_checkpoints,
                               gib(summary.checkpoint_disk_bytes),
                               gib(static_cast<double>(place.free_disk_bytes)),
                               summary.fits_disk() ? "" : ": DO NOT FIT")});
  return lines;
}

}  // namespace

void print_summary(const RunSummary& summary) {
  auto lines = run_lines(summary);
  for (auto& line : resource_lines(summary)) lines.push_back(std::move(line));
  for (const auto& line : lines) print_out("{}", as_text(line));
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
          {"gpu_memory_bytes", null_if_unknown(static_cast<int64_t>(summary.device_memory_bytes))},
          {"gpu_memory_total_bytes", null_if_unknown(summary.place.device_memory_bytes)},
          {"fits_gpu", summary.fits_device()},
          {"checkpoint_bytes", summary.checkpoint_bytes},
          {"kept_checkpoints", summary.kept_checkpoints},
          {"checkpoint_disk_bytes", summary.checkpoint_disk_bytes},
          {"free_disk_bytes", null_if_unknown(summary.place.free_disk_bytes)},
          {"fits_disk", summary.fits_disk()}};
}

}  // namespace dsmoe
