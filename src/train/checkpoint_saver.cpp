#include "train/checkpoint_saver.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <chrono>

#include "common/error.h"
#include "common/log.h"

namespace dsmoe {
namespace {

void copy_tensors(const NamedTensors& from, NamedTensors& to) {
  const at::NoGradGuard no_grad;
  if (to.size() != from.size()) {
    to.clear();
    for (const auto& [name, tensor] : from) {
      to.emplace_back(name,
                      tensor.detach().to(at::kCPU, tensor.scalar_type(), false, /*copy=*/true));
    }
    return;
  }
  for (size_t i = 0; i < from.size(); ++i) {
    TORCH_CHECK(to[i].first == from[i].first, "CheckpointSaver: the tensors' names changed");
    to[i].second.copy_(from[i].second);
  }
}

}  // namespace

CheckpointSaver::~CheckpointSaver() {
  try {
    collect(OnSaveFailure::kContinue);
  } catch (...) {
    // collect() has logged a RunError; a destructor cannot report more.
  }
}

void CheckpointSaver::start(const CheckpointContents& contents) {
  collect(on_failure_);
  snapshot_.manifest = contents.manifest;
  snapshot_.files = contents.files;
  snapshot_.best_step = contents.best_step;
  copy_tensors(contents.model, snapshot_.model);
  copy_tensors(contents.optimizer, snapshot_.optimizer);
  in_flight_ = std::async(std::launch::async, [this] {
    auto directory = store_.save(snapshot_);
    log_info(fmt::format("step {} | saved {}", snapshot_.manifest.step, directory));
    return directory;
  });
}

void CheckpointSaver::check() {
  if (!in_flight_.valid()) return;
  if (in_flight_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
  collect(on_failure_);
}

void CheckpointSaver::finish() { collect(OnSaveFailure::kStop); }

void CheckpointSaver::collect(OnSaveFailure on_failure) {
  if (!in_flight_.valid()) return;
  try {
    newest_ = in_flight_.get();
  } catch (const RunError& error) {
    if (on_failure == OnSaveFailure::kStop) throw;
    ++n_failed_;
    log_error(fmt::format("step {} is not saved: {}", snapshot_.manifest.step, error.what()));
  }
}

}  // namespace dsmoe
