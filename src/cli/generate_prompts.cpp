#include "cli/generate_prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "cli/prompt_file.h"
#include "common/error.h"
#include "common/log.h"
#include "common/standard_output.h"
#include "common/stop_signal.h"
#include "infer/batch_scheduler.h"

namespace dsmoe {
namespace {

// Completions that ended, shown in the order their requests were given.
class OrderedOutput {
 public:
  OrderedOutput(const PromptsCommand& command, std::vector<std::string> prompts)
      : command_(command), prompts_(std::move(prompts)), ended_(prompts_.size()) {}

  void add(size_t request, const Completion& completion) {
    if (command_.json_lines) {
      auto line = completion_json(completion);
      line["request"] = request;
      print_json(line);
    }
    ended_[request] = completion;
    if (command_.json || command_.json_lines) return;
    for (; n_shown_ < ended_.size() && ended_[n_shown_]; ++n_shown_) {
      print_out("--- {}\n{}{}\n", n_shown_ + 1, prompts_[n_shown_], ended_[n_shown_]->text);
    }
  }

  nlohmann::ordered_json to_json() const {
    auto list = nlohmann::ordered_json::array();
    for (const auto& completion : ended_) list.push_back(completion_json(*completion));
    return list;
  }

 private:
  const PromptsCommand& command_;
  std::vector<std::string> prompts_;
  std::vector<std::optional<Completion>> ended_;
  size_t n_shown_ = 0;
};

nlohmann::ordered_json to_json(const PromptsCommand& command, const SchedulerStats& stats) {
  const double seconds = std::max(stats.seconds, 1e-9);
  return {{"prompt_tokens", stats.prompt_tokens},
          {"generated_tokens", stats.generated_tokens},
          {"seconds", stats.seconds},
          {"generated_tokens_per_second", static_cast<double>(stats.generated_tokens) / seconds},
          {"tokens_per_second",
           static_cast<double>(stats.prompt_tokens + stats.generated_tokens) / seconds},
          {"steps", stats.steps},
          {"largest_batch", stats.largest_batch},
          {"kv_budget_bytes", command.kv_budget_mib << 20},
          {"peak_kv_bytes", stats.peak_kv_bytes},
          {"active_experts", active_experts_json(stats.usage.active_experts())}};
}

}  // namespace

bool must_stop() { return stop_requested() || standard_output().is_lost(); }

std::vector<int32_t> encode_prompt(const std::string& text, const Tokenizer& tokenizer) {
  auto ids = tokenizer.encode_with_bos(text);
  // There must be something to continue, also where BOS goes before no text.
  if (const auto bos = tokenizer.bos_id(); ids.empty() && bos) ids.push_back(*bos);
  if (ids.empty()) {
    throw Error("--prompt: expected a text, got none; this tokenizer has no BOS to start from");
  }
  return ids;
}

nlohmann::ordered_json completion_json(const Completion& completion) {
  return {{"text", completion.text},
          {"ids", completion.ids},
          {"finish_reason", to_string(completion.finish_reason)}};
}

int generate_prompts(const PromptsCommand& command, LoadedCheckpoint& loaded) {
  if (!loaded.model->device().is_cpu()) {
    throw Error("--prompts: expected --device cpu, whose kernels alone mix sequences in a pass");
  }
  const auto texts = read_prompts(posix_io(), command.file, command.defaults);
  std::vector<std::string> prompts;
  for (const auto& text : texts) {
    prompts.insert(prompts.end(), static_cast<size_t>(command.n), text.prompt);
  }
  OrderedOutput output(command, std::move(prompts));
  SchedulerOptions options{
      .plan = loaded.plan,
      .compute_dtype = loaded.compute_dtype,
      .kv_budget_bytes = command.kv_budget_mib << 20,
      .max_batch = command.max_batch,
      .on_text = {},
      .on_completion = [&](size_t request,
                           const Completion& completion) { output.add(request, completion); },
      .stop = must_stop};
  BatchScheduler scheduler(loaded.model, *loaded.tokenizer, options);
  for (const auto& text : texts) {
    auto request = text.options;
    request.prompt = encode_prompt(text.prompt, *loaded.tokenizer);
    for (request.draw = 0; request.draw < command.n; ++request.draw) scheduler.submit(request);
  }
  install_stop_signal();
  while (scheduler.step()) {
  }
  auto json = to_json(command, scheduler.stats());
  add_load_json(json, loaded.load_seconds, loaded.model);
  if (command.json && !command.json_lines) json["completions"] = output.to_json();
  if (command.json || command.json_lines) print_json(json);
  print_note(fmt::format("{} prompts, {} tokens, {:.1f} per second\n",
                         texts.size(),
                         scheduler.stats().generated_tokens,
                         json["generated_tokens_per_second"].get<double>()));
  return stop_requested() ? kExitStopped : 0;
}

}  // namespace dsmoe
