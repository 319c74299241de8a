#include "data/data_loader.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <variant>

#include "common/error.h"
#include "data/sample_order.h"
#include "data/sequence_packer.h"

namespace dsmoe {
namespace {

const DataLoaderConfig& checked(const DataLoaderConfig& config) {
  if (config.batch_size < 1 || config.prefetch < 0) {
    throw Error(
        fmt::format("data loader: expected batch_size >= 1 and prefetch >= 0, got {} and {}",
                    config.batch_size,
                    config.prefetch));
  }
  return config;
}

using Made = std::variant<Batch, std::exception_ptr>;

}  // namespace

struct DataLoader::State {
  State(std::shared_ptr<const TokenDataset> data, const DataLoaderConfig& checked_config)
      : dataset(std::move(data)),
        config(checked_config),
        packer(dataset->n_tokens(), config.seq_len, config.seed),
        order(packer.n_sequences(), config.seed) {
    if (config.prefetch > 0) thread = std::thread([this] { read_ahead(); });
  }
  ~State() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    if (thread.joinable()) thread.join();
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  Batch make(int64_t first) const;
  void read_ahead();
  Batch take();

  std::shared_ptr<const TokenDataset> dataset;
  DataLoaderConfig config;
  SequencePacker packer;
  SampleOrder order;

  std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  std::deque<Made> queue;     // of the batches from `position` on; an exception is the last
  int64_t position = 0;       // of the next batch handed out
  int64_t next_position = 0;  // of the next batch made ahead
  int64_t generation = 0;     // counts seeks: a batch made before one is dropped
  bool stopping = false;
  std::thread thread;
};

Batch DataLoader::State::make(int64_t first) const {
  const int64_t n_rows = config.batch_size;
  const auto n_columns = static_cast<size_t>(config.seq_len);
  Batch batch;
  batch.tokens = at::empty({n_rows, config.seq_len}, at::kLong);   // [batch, seq]
  batch.targets = at::empty({n_rows, config.seq_len}, at::kLong);  // [batch, seq]
  auto* token = batch.tokens.data_ptr<int64_t>();
  auto* target = batch.targets.data_ptr<int64_t>();
  std::vector<int32_t> window(n_columns + 1);
  for (int64_t row = 0; row < n_rows; ++row) {
    const SamplePlace place = order.at(first + row);
    dataset->copy(packer.begin(place.epoch, place.index), window);
    token = std::copy(window.begin(), window.end() - 1, token);
    target = std::copy(window.begin() + 1, window.end(), target);
    batch.positions.push_back(first + row);
  }
  return batch;
}

void DataLoader::State::read_ahead() {
  std::unique_lock lock(mutex);
  const auto has_work = [this] {
    const bool failed = !queue.empty() && std::holds_alternative<std::exception_ptr>(queue.back());
    return stopping || (!failed && static_cast<int64_t>(queue.size()) < config.prefetch);
  };
  while (true) {
    changed.wait(lock, has_work);
    if (stopping) return;
    const int64_t first = next_position;
    const int64_t made_in = generation;
    lock.unlock();
    Made made;
    try {
      made = make(first);
    } catch (...) {
      made = std::current_exception();
    }
    lock.lock();
    if (made_in != generation) continue;
    queue.push_back(std::move(made));
    next_position += config.batch_size;
    changed.notify_all();
  }
}

// An exception stays in the queue: every later call meets it too, until a seek.
Batch DataLoader::State::take() {
  std::unique_lock lock(mutex);
  changed.wait(lock, [this] { return !queue.empty(); });
  if (const auto* error = std::get_if<std::exception_ptr>(&queue.front())) {
    std::rethrow_exception(*error);
  }
  Batch batch = std::get<Batch>(std::move(queue.front()));
  queue.pop_front();
  position += config.batch_size;
  changed.notify_all();
  return batch;
}

DataLoader::DataLoader(std::shared_ptr<const TokenDataset> dataset, const DataLoaderConfig& config)
    : state_(std::make_unique<State>(std::move(dataset), checked(config))) {}

DataLoader::~DataLoader() = default;

Batch DataLoader::next() {
  if (state_->config.prefetch > 0) return state_->take();
  Batch batch = state_->make(state_->position);
  state_->position += state_->config.batch_size;
  return batch;
}

int64_t DataLoader::position() const {
  const std::lock_guard lock(state_->mutex);
  return state_->position;
}

void DataLoader::seek(int64_t position) {
  if (position < 0) {
    throw Error(fmt::format("data loader: expected a position >= 0, got {}", position));
  }
  {
    const std::lock_guard lock(state_->mutex);
    state_->position = position;
    state_->next_position = position;
    state_->queue.clear();
    ++state_->generation;
  }
  state_->changed.notify_all();
}

int64_t DataLoader::n_sequences() const { return state_->packer.n_sequences(); }

}  // namespace dsmoe
