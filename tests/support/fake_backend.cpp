#include "support/fake_backend.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/cat.h>

#include <stdexcept>

namespace dsmoe {
namespace {

// The fake finishes before it returns: there is nothing to wait for.
class DoneWork : public c10d::Work {
 public:
  explicit DoneWork(std::vector<at::Tensor> tensors)
      : future_(c10::make_intrusive<c10::ivalue::Future>(
            c10::ListType::create(c10::TensorType::get()))) {
    future_->markCompleted(std::move(tensors));
  }
  bool isCompleted() override { return true; }
  bool wait(std::chrono::milliseconds timeout) override {
    (void)timeout;
    return true;
  }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }

 private:
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

at::Tensor sum_of(const std::vector<at::Tensor>& of_ranks) {
  auto sum = of_ranks[0].clone();
  for (size_t rank = 1; rank < of_ranks.size(); ++rank) sum.add_(of_ranks[rank]);
  return sum;
}

at::Tensor all_of(const std::vector<at::Tensor>& of_ranks) {
  std::vector<at::Tensor> flat;
  for (const auto& tensor : of_ranks) flat.push_back(tensor.reshape({-1}));
  return at::cat(flat);
}

}  // namespace

class FakeBackend : public c10d::Backend {
 public:
  FakeBackend(FakeNetwork& network, int rank, int size) : Backend(rank, size), network_(network) {}

  const std::string getBackendName() const override { return "fake"; }
  void setTimeout(std::chrono::milliseconds timeout) override { (void)timeout; }
  void abort() override { network_.abort(rank_); }

  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions& options) override {
    return in_place(tensors, "broadcast", [root = options.rootRank](const auto& of_ranks) {
      return of_ranks[static_cast<size_t>(root)];
    });
  }

  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override {
    TORCH_CHECK(options.reduceOp == c10d::ReduceOp::SUM, "fake: expected a sum");
    return in_place(tensors, "all-reduce", sum_of);
  }

  c10::intrusive_ptr<c10d::Work> _allgather_base(at::Tensor& out,
                                                 at::Tensor& in,
                                                 const c10d::AllgatherOptions& options) override {
    (void)options;
    out.view({-1}).copy_(network_.exchange(rank_, "all-gather", in, all_of));
    return c10::make_intrusive<DoneWork>(std::vector<at::Tensor>{out});
  }

  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& out,
                                           std::vector<at::Tensor>& in,
                                           const c10d::AllgatherOptions& options) override {
    (void)options;
    const auto all = network_.exchange(rank_, "all-gather", in[0], all_of);
    const auto rows = all.view({getSize(), -1});
    for (int64_t i = 0; i < getSize(); ++i) {
      out[0][static_cast<size_t>(i)].view({-1}).copy_(rows[i]);
    }
    return c10::make_intrusive<DoneWork>(out[0]);
  }

 private:
  c10::intrusive_ptr<c10d::Work> in_place(std::vector<at::Tensor>& tensors,
                                          const std::string& operation,
                                          const FakeNetwork::Combine& combine) {
    const at::NoGradGuard no_grad;
    for (auto& tensor : tensors) {
      tensor.copy_(network_.exchange(rank_, operation, tensor, combine));
    }
    return c10::make_intrusive<DoneWork>(tensors);
  }

  FakeNetwork& network_;
};

FakeNetwork::FakeNetwork(int64_t size, FakeFault fault)
    : size_(size),
      fault_(fault),
      logs_(static_cast<size_t>(size)),
      n_collectives_(static_cast<size_t>(size)),
      given_(static_cast<size_t>(size)) {}

FakeNetwork::~FakeNetwork() {
  std::unique_lock<std::mutex> lock(mutex_);
  is_closing_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return n_hanging_aborts_ == 0; });
}

MakeBackend FakeNetwork::make_backend() {
  return [this](const c10::intrusive_ptr<c10d::Store>&, int64_t rank, int64_t size, double) {
    set_up(rank);
    return c10::intrusive_ptr<c10d::Backend>(
        c10::make_intrusive<FakeBackend>(*this, static_cast<int>(rank), static_cast<int>(size)));
  };
}

void FakeNetwork::note(int64_t rank, const std::string& line) {
  const std::lock_guard<std::mutex> lock(mutex_);
  logs_[static_cast<size_t>(rank)].push_back(line);
}

std::vector<std::string> FakeNetwork::log(int64_t rank) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return logs_[static_cast<size_t>(rank)];
}

void FakeNetwork::set_up(int64_t rank) {
  if (rank == fault_.rank && fault_.throws_at == 0) {
    throw std::runtime_error("NCCL error: unhandled system error\nwith a long trace");
  }
}

at::Tensor FakeNetwork::exchange(int64_t rank,
                                 const std::string& operation,
                                 const at::Tensor& mine,
                                 const Combine& combine) {
  const auto index = static_cast<size_t>(rank);
  std::unique_lock<std::mutex> lock(mutex_);
  logs_[index].push_back(operation + " " + std::to_string(mine.numel()));
  const int64_t number = ++n_collectives_[index];
  if (rank == fault_.rank && number == fault_.throws_at) {
    throw std::runtime_error("NCCL error: remote process exited\nwith a long trace");
  }
  if (rank == fault_.rank && number == fault_.hangs_at) hang(lock);
  const auto check = [&] {
    if (aborted_by_ == rank) throw std::runtime_error("NCCL communicator was aborted");
    if (aborted_by_ >= 0) throw std::runtime_error("NCCL error: connection closed by peer");
  };
  // The next collective begins when all have taken the last one's result.
  changed_.wait(lock, [&] { return n_taken_ == 0 || aborted_by_ >= 0; });
  check();
  // Each rank has its device.
  given_[index] = mine.detach().to(at::kCPU, mine.scalar_type(), false, /*copy=*/true);
  if (++n_given_ == size_) {
    result_ = combine(given_);
    n_taken_ = size_;
    n_given_ = 0;
    changed_.notify_all();
  }
  changed_.wait(lock, [&] { return n_taken_ > 0 || aborted_by_ >= 0; });
  if (n_taken_ == 0) check();
  auto result = result_;
  if (--n_taken_ == 0) changed_.notify_all();
  return result;
}

void FakeNetwork::hang(std::unique_lock<std::mutex>& lock) {
  changed_.wait(lock, [this] { return aborted_by_ >= 0; });
}

void FakeNetwork::abort(int64_t rank) {
  std::unique_lock<std::mutex> lock(mutex_);
  logs_[static_cast<size_t>(rank)].push_back("abort");
  const bool is_faulty = rank == fault_.rank;
  if (!(is_faulty && fault_.abort_hangs) && aborted_by_ < 0) aborted_by_ = rank;
  changed_.notify_all();
  if (is_faulty && fault_.abort_throws) throw std::runtime_error("ncclCommAbort: invalid usage");
  if (is_faulty && fault_.abort_hangs) {
    ++n_hanging_aborts_;
    changed_.wait(lock, [this] { return is_closing_; });
    --n_hanging_aborts_;
    changed_.notify_all();
  }
}

}  // namespace dsmoe
