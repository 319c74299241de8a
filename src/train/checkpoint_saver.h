#pragma once

#include <cstdint>
#include <future>
#include <string>

#include "train/checkpoint_store.h"
#include "train/train_config.h"

namespace dsmoe {

/// Saves a copy on a background thread: training waits for the copy only. One save at a time.
class CheckpointSaver {
 public:
  CheckpointSaver(CheckpointStore& store, OnSaveFailure on_failure)
      : store_(store), on_failure_(on_failure) {}
  /// Waits for the save in flight; its failure is only logged.
  ~CheckpointSaver();
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  /// Waits for the save in flight, copies every tensor and begins to save the copy.
  /// Throws the failure of the save before, as check does.
  void start(const CheckpointContents& contents);

  /// If the save in flight has ended: kStop throws its failure, kContinue logs it, so that the next
  /// save tries again. Does not wait.
  void check();

  /// Waits for the save in flight. Throws its failure in either case.
  void finish();

  /// The newest checkpoint that this saver saved; empty if there is none.
  const std::string& newest() const { return newest_; }
  /// Saves that failed and were passed over.
  int64_t n_failed() const { return n_failed_; }

 private:
  void collect(OnSaveFailure on_failure);

  CheckpointStore& store_;
  OnSaveFailure on_failure_;
  CheckpointContents snapshot_;  // its tensors' memory is used again by every save
  std::future<std::string> in_flight_;
  std::string newest_;
  int64_t n_failed_ = 0;
};

}  // namespace dsmoe
