#pragma once

#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <vector>

#include "distributed/accelerator.h"

namespace dsmoe {

/// The faults of one rank of a FakeNetwork; collectives count from 1, setting up is 0.
struct FakeFault {
  int64_t rank = -1;
  int64_t throws_at = -1;  ///< this collective throws
  int64_t hangs_at = -1;   ///< this one does not return before it is aborted
  bool abort_throws = false;
  bool abort_hangs = false;  ///< until the network is gone
};

/// Collectives over ranks that are threads, in memory: c10d::Backend as NCCL implements it, with
/// faults on request and a log per rank.
class FakeNetwork {
 public:
  explicit FakeNetwork(int64_t size, FakeFault fault = {});
  ~FakeNetwork();

  /// For RankGroup; the network must outlive the groups.
  MakeBackend make_backend();

  /// Adds a line to a rank's log, between its collectives.
  void note(int64_t rank, const std::string& line);
  /// `all-reduce 12`: operation and elements, `abort`, and lines of note().
  std::vector<std::string> log(int64_t rank) const;

 private:
  friend class FakeBackend;
  using Combine = std::function<at::Tensor(const std::vector<at::Tensor>& of_ranks)>;

  void set_up(int64_t rank);
  at::Tensor exchange(int64_t rank,
                      const std::string& operation,
                      const at::Tensor& mine,
                      const Combine& combine);
  void abort(int64_t rank);
  void hang(std::unique_lock<std::mutex>& lock);

  const int64_t size_;
  const FakeFault fault_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::vector<std::string>> logs_;  // by rank
  std::vector<int64_t> n_collectives_;          // begun, by rank
  std::vector<at::Tensor> given_;               // tensors of the running collective, by rank
  int64_t n_given_ = 0;
  int64_t n_taken_ = 0;
  at::Tensor result_;
  int64_t aborted_by_ = -1;
  bool is_closing_ = false;
  int64_t n_hanging_aborts_ = 0;
};

}  // namespace dsmoe
