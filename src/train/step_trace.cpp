#include "train/step_trace.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>

#include "common/log.h"
#include "common/stop_signal.h"

namespace dsmoe {
namespace {

namespace profiler = torch::autograd::profiler;
constexpr int64_t kWarmUpSteps = 2;  // their allocations are not those of later steps

}  // namespace

StepTrace::StepTrace(std::string run_directory, int64_t n_steps)
    : run_directory_(std::move(run_directory)), n_steps_(n_steps) {}

StepTrace::~StepTrace() {
  if (n_left_ > 0) profiler::disableProfiler();
}

void StepTrace::begin_step() {
  const bool is_asked = take_trace_request();
  const bool is_due = n_steps_ > 0 && n_seen_ == kWarmUpSteps;
  ++n_seen_;
  if (n_left_ > 0 || (!is_asked && !is_due)) return;
  n_left_ = is_due ? n_steps_ : 1;
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  const std::set<torch::profiler::impl::ActivityType> activities = {
      torch::profiler::impl::ActivityType::CPU};
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
}

void StepTrace::end_step(int64_t step) {
  if (n_left_ == 0 || --n_left_ > 0) return;
  const auto path = fmt::format("{}/trace-step-{:08}.json", run_directory_, step);
  profiler::disableProfiler()->save(path);
  log_info(fmt::format("step {} | trace in {}", step, path));
}

}  // namespace dsmoe
