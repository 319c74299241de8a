#include "cli/generate_prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "common/error.h"
#include "common/log.h"
#include "common/standard_output.h"
#include "common/stop_signal.h"
#include "infer/engine.h"
#include "infer/prompt_file.h"

namespace dsmoe {
namespace {

// What is known of one completion that was asked for.
struct Answer {
  std::string prompt;
  std::string error = {};  // why it cannot be generated
  std::optional<Completion> completion = {};

  bool is_known() const { return completion.has_value() || !error.empty(); }
};

nlohmann::ordered_json to_json(const Answer& answer) {
  return answer.completion ? completion_json(*answer.completion)
                           : nlohmann::ordered_json({{"error", answer.error}});
}

// Answers, shown in the order their requests were given.
class OrderedOutput {
 public:
  OrderedOutput(const PromptsCommand& command, std::vector<Answer> answers)
      : command_(command), answers_(std::move(answers)) {
    for (size_t i = 0; i < answers_.size(); ++i) {
      if (!answers_[i].error.empty()) show(i);
    }
  }

  void add(size_t request, const Completion& completion) {
    answers_[request].completion = completion;
    show(request);
  }

  nlohmann::ordered_json completions() const {
    auto list = nlohmann::ordered_json::array();
    for (const auto& answer : answers_) list.push_back(to_json(answer));
    return list;
  }

 private:
  void show(size_t request) {
    if (command_.options.json_lines) {
      auto line = to_json(answers_[request]);
      line["request"] = request;
      print_json(line);
    }
    if (command_.json || command_.options.json_lines) return;
    for (; n_shown_ < answers_.size() && answers_[n_shown_].is_known(); ++n_shown_) {
      const auto& [prompt, error, completion] = answers_[n_shown_];
      print_out("--- {}\n", n_shown_ + 1);
      if (completion) {
        standard_output().write_generated(prompt + completion->text + "\n");
      } else {
        print_out("failed: {}\n", error);
      }
    }
  }

  const PromptsCommand& command_;
  std::vector<Answer> answers_;
  size_t n_shown_ = 0;
};

std::vector<std::string> errors_of(const std::vector<TextRequest>& texts) {
  std::vector<std::string> errors;
  for (const auto& text : texts) {
    if (!text.error.empty()) errors.push_back(text.error);
  }
  return errors;
}

double tokens_per_second(const EngineStats& stats, int64_t n_tokens) {
  return static_cast<double>(n_tokens) / std::max(stats.seconds, 1e-9);
}

nlohmann::ordered_json to_json(const PromptsCommand& command, const EngineStats& stats) {
  const int64_t n_tokens = stats.prompt_tokens + stats.generated_tokens;
  return {{"prompt_tokens", stats.prompt_tokens},
          {"generated_tokens", stats.generated_tokens},
          {"seconds", stats.seconds},
          {"generated_tokens_per_second", tokens_per_second(stats, stats.generated_tokens)},
          {"tokens_per_second", tokens_per_second(stats, n_tokens)},
          {"steps", stats.steps},
          {"largest_batch", stats.largest_batch},
          {"kv_budget_bytes", command.options.kv_budget_mib << 20},
          {"peak_kv_bytes", stats.peak_kv_bytes},
          {"active_experts", active_experts_json(stats.usage.active_experts())}};
}

// Hands all completions of a prompt to the engine, or none and notes why.
void submit(TextRequest& text, int64_t n, Engine& engine, const Tokenizer& tokenizer) {
  if (!text.error.empty()) return;
  try {
    auto request = text.options;
    request.prompt = encode_prompt(text.prompt, tokenizer);
    for (request.draw = 0; request.draw < n; ++request.draw) engine.submit(request);
  } catch (const Error& error) {
    text.error = fmt::format("{}: {}", text.place, error.what());
  }
}

// Hands over what can be run; returns an answer for each completion of each prompt.
std::vector<Answer> submit_all(std::vector<TextRequest>& texts,
                               int64_t n,
                               Engine& engine,
                               const Tokenizer& tokenizer,
                               std::vector<size_t>& answer_of_request) {
  std::vector<Answer> answers;
  for (auto& text : texts) {
    submit(text, n, engine, tokenizer);
    for (int64_t draw = 0; draw < n; ++draw) {
      if (text.error.empty()) answer_of_request.push_back(answers.size());
      answers.push_back({.prompt = text.prompt, .error = text.error});
    }
  }
  return answers;
}

void report_failures(const PromptsCommand& command,
                     size_t n_prompts,
                     const std::vector<std::string>& errors) {
  if (errors.empty()) return;
  throw RunError(fmt::format("{}: {} of {} prompts could not be run; the first is {}",
                             command.options.file,
                             errors.size(),
                             n_prompts,
                             errors.front()));
}

}  // namespace

bool must_stop() { return stop_requested() || standard_output().is_lost(); }

nlohmann::ordered_json completion_json(const Completion& completion) {
  return {{"text", completion.text},
          {"ids", completion.ids},
          {"finish_reason", to_string(completion.finish_reason)}};
}

int generate_prompts(const PromptsCommand& command, LoadedCheckpoint& loaded) {
  if (!loaded.model->device().is_cpu()) {
    throw Error("--prompts: expected --device cpu, whose kernels alone mix sequences in a pass");
  }
  auto texts =
      read_prompts(posix_io(), command.options.file, command.defaults, command.options.field);
  std::vector<size_t> answer_of_request;
  std::optional<OrderedOutput> output;  // once it is known which prompts can be run
  EngineOptions options{.plan = loaded.plan,
                        .compute_dtype = loaded.compute_dtype,
                        .continuous = true,
                        .max_batch = command.options.max_batch,
                        .kv_budget_bytes = command.options.kv_budget_mib << 20,
                        .on_completion =
                            [&](size_t request, const Completion& completion) {
                              output->add(answer_of_request[request], completion);
                            },
                        .stop = must_stop};
  Engine engine(loaded.model, *loaded.tokenizer, options);
  auto answers = submit_all(texts, command.n, engine, *loaded.tokenizer, answer_of_request);
  const auto errors = errors_of(texts);
  // Nothing can be done: bad input, not a part of a result.
  if (errors.size() == texts.size()) throw Error(errors.front());
  for (const auto& error : errors) print_note(fmt::format("left out: {}\n", error));
  output.emplace(command, std::move(answers));
  install_stop_signal();
  while (engine.step()) {
  }
  if (command.json || command.options.json_lines) {
    auto json = to_json(command, engine.stats());
    json["dtype"] = loaded.dtype;
    json["failed"] = errors.size();
    add_load_json(json, loaded.load_seconds, loaded_bytes(loaded.model));
    if (!command.options.json_lines) json["completions"] = output->completions();
    print_json(json);
  }
  print_note(fmt::format("{} prompts, {} tokens, {:.1f} per second, {} weights\n",
                         texts.size() - errors.size(),
                         engine.stats().generated_tokens,
                         tokens_per_second(engine.stats(), engine.stats().generated_tokens),
                         loaded.dtype));
  if (stop_requested()) return kExitStopped;
  report_failures(command, texts.size(), errors);
  return 0;
}

}  // namespace dsmoe
