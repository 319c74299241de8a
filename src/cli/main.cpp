#include <c10/util/Exception.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "cli/commands.h"
#include "common/error.h"
#include "common/log.h"
#include "common/process_setup.h"
#include "common/standard_output.h"
#include "common/stop_signal.h"

namespace {

constexpr int kExitFailed = 1;
constexpr int kExitBadInput = 2;
constexpr int kExitStopped = 75;

int report(int code, std::string message) {
  for (auto& c : message) c = c == '\n' ? ' ' : c;
  std::fprintf(stderr, "dsmoe: %s\n", message.c_str());
  return code;
}

// What was printed must have arrived. A stop stays a stop: its state is saved elsewhere.
int finish(int code) {
  const auto failure = dsmoe::standard_output().finish();
  if (failure.empty()) return code;
  return report(code == 0 ? kExitFailed : code, failure);
}

bool runs_a_model(const char* command) {
  return std::strcmp(command, "train") == 0 || std::strcmp(command, "eval") == 0 ||
         std::strcmp(command, "curve") == 0 || std::strcmp(command, "check") == 0 ||
         std::strcmp(command, "budget") == 0 || std::strcmp(command, "generate") == 0 ||
         std::strcmp(command, "bench") == 0 || std::strcmp(command, "export") == 0 ||
         std::strcmp(command, "convert") == 0;
}

bool asks_for_help(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--help") == 0 || std::strcmp(argv[i], "-h") == 0) return true;
  }
  return false;
}

int parse_and_run(int argc, char** argv) {
  dsmoe::CommandLine line(
      "dsmoe trains mixture-of-experts language models densely and runs them sparsely.\n"
      "Example: dsmoe train configs/quickstart.yaml",
      DSMOE_VERSION);
  dsmoe::add_tokenize_command(line);
  dsmoe::add_train_command(line);
  dsmoe::add_eval_command(line);
  dsmoe::add_check_command(line);
  dsmoe::add_curve_command(line);
  dsmoe::add_budget_command(line);
  dsmoe::add_generate_command(line);
  dsmoe::add_convert_command(line);
  dsmoe::add_inspect_command(line);
  dsmoe::add_bench_command(line);
  dsmoe::add_plan_command(line);
  dsmoe::add_export_command(line);
  dsmoe::add_report_command(line);
  dsmoe::add_launch_command(line);
  return line.run(argc, argv);
}

}  // namespace

int main(int argc, char** argv) {
  dsmoe::reserve_standard_descriptors();
  dsmoe::setup_process();
  if (argc > 1 && runs_a_model(argv[1]) && !asks_for_help(argc, argv)) {
    dsmoe::restart_with_passive_waiting(argv);
  }
  dsmoe::setup_log();
  try {
    return finish(parse_and_run(argc, argv));
  } catch (const dsmoe::Error& error) {
    return report(kExitBadInput, error.what());
  } catch (const dsmoe::RunError& error) {
    return report(kExitFailed, error.what());
  } catch (const dsmoe::StoppedError& error) {
    return report(kExitStopped, error.what());
  } catch (const c10::Error& error) {
    return report(kExitFailed, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return report(kExitFailed, "out of memory");
  } catch (const std::exception& error) {
    return report(kExitFailed, error.what());
  }
}
