#include <algorithm>
#include <cstring>
#include <exception>
#include <iterator>
#include <new>
#include <string>
#include <string_view>

#include "cli/commands.h"
#include "common/config_reader.h"
#include "common/error.h"
#include "common/exit_codes.h"
#include "common/log.h"
#include "common/process_setup.h"
#include "common/standard_output.h"
#include "common/stop_signal.h"

namespace {

int report(int code, const std::string& message) {
  dsmoe::print_complaint(message);
  return code;
}

// What was printed must have arrived. A stop stays a stop: its state is saved elsewhere.
int finish(int code) {
  const auto failure = dsmoe::standard_output().finish();
  if (failure.empty()) return code;
  return report(code == 0 ? dsmoe::kExitFailed : code, failure);
}

// End with kExitStopped after a stop signal, whenever that comes.
constexpr std::string_view kStoppable[] =
    {"train", "eval", "curve", "recommend", "budget", "generate", "launch"};

bool asks_for_help(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--help") == 0 || std::strcmp(argv[i], "-h") == 0) return true;
  }
  return false;
}

bool stops_when_asked(int argc, char** argv) {
  if (argc < 2 || asks_for_help(argc, argv)) return false;
  return std::find(std::begin(kStoppable), std::end(kStoppable), argv[1]) != std::end(kStoppable);
}

// Run ahead of the libraries' initialisers, this keeps a signal that arrives during them until there
// are handlers.
void hold_early_signals(int argc, char** argv, char**) {
  if (stops_when_asked(argc, argv)) dsmoe::hold_signals();
}

[[gnu::used,
  gnu::section(".preinit_array")]] void (*first_of_all)(int, char**, char**) = hold_early_signals;

void install_signals(int argc, char** argv) {
  if (stops_when_asked(argc, argv)) {
    dsmoe::install_stop_signal();
    if (std::strcmp(argv[1], "train") == 0) dsmoe::install_trace_signal();
  }
  dsmoe::release_signals();
}

int parse_and_run(int argc, char** argv) {
  dsmoe::CommandLine line(
      "dsmoe trains mixture-of-experts language models densely and runs them sparsely.",
      DSMOE_VERSION);
  line.group("Data");
  dsmoe::add_tokenize_command(line);
  line.group("Training");
  dsmoe::add_init_command(line);
  dsmoe::add_train_command(line);
  dsmoe::add_launch_command(line);
  dsmoe::add_plan_command(line);
  dsmoe::add_report_command(line);
  line.group("Quality and policies");
  dsmoe::add_eval_command(line);
  dsmoe::add_curve_command(line);
  dsmoe::add_recommend_command(line);
  dsmoe::add_budget_command(line);
  dsmoe::add_check_command(line);
  line.group("Models");
  dsmoe::add_generate_command(line);
  dsmoe::add_inspect_command(line);
  dsmoe::add_convert_command(line);
  dsmoe::add_export_command(line);
  dsmoe::add_bench_command(line);
  line.group("This program");
  dsmoe::add_help_command(line);
  dsmoe::add_completion_command(line);
  line.examples(
      "Examples:\n"
      "  dsmoe tokenize --input corpus.txt --tokenizer train:bpe:4096 --out shards/corpus\n"
      "  dsmoe train configs/quickstart.yaml\n"
      "  dsmoe eval runs/quickstart --data data/tinyshakespeare/valid.txt --policy threshold=0.48\n"
      "  dsmoe generate runs/quickstart -p 'ROMEO:' -n 100 --policy top_k=4");
  return line.run(argc, argv);
}

}  // namespace

int main(int argc, char** argv) {
  dsmoe::setup_process();
  install_signals(argc, argv);
  dsmoe::setup_log();
  try {
    return finish(parse_and_run(argc, argv));
  } catch (const dsmoe::ConfigError& error) {
    for (const auto& line : error.lines()) dsmoe::print_complaint(line);
    return dsmoe::kExitBadInput;
  } catch (const dsmoe::Error& error) {
    return report(dsmoe::kExitBadInput, error.what());
  } catch (const dsmoe::RunError& error) {
    return report(dsmoe::kExitFailed, error.what());
  } catch (const dsmoe::StoppedError& error) {
    return report(dsmoe::kExitStopped, error.what());
  } catch (const std::bad_alloc&) {
    return report(dsmoe::kExitFailed, "out of memory");
  } catch (const std::exception& error) {
    return report(dsmoe::kExitFailed, error.what());
  }
}
