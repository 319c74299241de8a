#pragma once

#include <cstdint>
#include <string>

namespace dsmoe {

/// Writes a Chrome trace of the operators of whole training steps, on all threads, to
/// `RUN/trace-step-00000012.json`; read it with chrome://tracing or Perfetto.
class StepTrace {
 public:
  /// n_steps: traced after the first two of this process; 0: only what is asked for.
  StepTrace(std::string run_directory, int64_t n_steps);
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

  /// Around each step; a trace also begins if a trace signal came (see stop_signal.h).
  void begin_step();
  void end_step(int64_t step);

 private:
  std::string run_directory_;
  int64_t n_steps_;
  int64_t n_seen_ = 0;  // steps of this process
  int64_t n_left_ = 0;  // of the trace in progress
};

}  // namespace dsmoe
