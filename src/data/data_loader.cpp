#include "data/data_loader.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <variant>

#include "common/error.h"
#include "common/random_seed.h"
#include "data/corpus_mix.h"
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
  if (config.rank < 0 || config.rank >= config.n_ranks) {
    throw Error(fmt::format(
        "data loader: expected a rank in [0, {}), got {}", config.n_ranks, config.rank));
  }
  return config;
}

std::vector<double> weights_of(const std::vector<WeightedSource>& sources) {
  std::vector<double> weights;
  for (const auto& source : sources) weights.push_back(source.weight);
  return weights;
}

// One corpus, its sequences and their order.
struct Corpus {
  Corpus(std::shared_ptr<const TokenSource> tokens, int64_t seq_len, uint64_t seed)
      : source(std::move(tokens)),
        packer(source->n_tokens(), seq_len, seed),
        order(packer.n_sequences(), seed) {}

  std::shared_ptr<const TokenSource> source;
  SequencePacker packer;
  SampleOrder order;
};

// Positions that restart where a document starts.
void fill_document_positions(const std::vector<int64_t>& starts,
                             int64_t begin,
                             std::span<int64_t> out) {
  auto next = starts.begin();
  int64_t position = 0;
  for (int64_t& value : out) {
    if (next != starts.end() && *next == begin) {
      position = 0;
      ++next;
    }
    value = position++;
    ++begin;
  }
}

// A batch before it becomes tensors. Its memory is reused: small tensors that one thread allocates
// and another frees leave tens of megabytes of unjoined pieces on the first thread's heap.
struct Rows {
  std::vector<int64_t> tokens, targets, document_positions;  // [batch, seq]
  std::vector<int64_t> positions;                            // [batch]
};

using Made = std::variant<Rows, std::exception_ptr>;

at::Tensor to_tensor(const std::vector<int64_t>& values, int64_t n_rows, bool pinned) {
  const auto n_values = static_cast<int64_t>(values.size());
  auto tensor =
      at::empty({n_rows, n_values / n_rows}, at::TensorOptions(at::kLong).pinned_memory(pinned));
  std::copy(values.begin(), values.end(), tensor.data_ptr<int64_t>());
  return tensor;
}

Batch to_batch(const Rows& rows, bool pinned) {
  const auto n_rows = static_cast<int64_t>(rows.positions.size());
  Batch batch;
  batch.tokens = to_tensor(rows.tokens, n_rows, pinned);    // [batch, seq]
  batch.targets = to_tensor(rows.targets, n_rows, pinned);  // [batch, seq]
  if (!rows.document_positions.empty()) {
    batch.document_positions = to_tensor(rows.document_positions, n_rows, pinned);  // [batch, seq]
  }
  batch.positions = rows.positions;
  return batch;
}

}  // namespace

struct DataLoader::State {
  State(std::vector<WeightedSource> sources, const DataLoaderConfig& checked_config)
      : config(checked_config), mix(weights_of(sources)) {
    for (size_t i = 0; i < sources.size(); ++i) {
      const uint64_t seed = i == 0 ? config.seed : derive_seed(config.seed, "corpus", i);
      corpora.emplace_back(std::move(sources[i].source), config.seq_len, seed);
    }
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

  TrainingSample sample(int64_t at) const;
  int64_t step() const { return config.batch_size * config.n_ranks; }
  void make(int64_t first, Rows& rows) const;
  void read_ahead();
  Batch take();
  Batch make_now();

  DataLoaderConfig config;
  CorpusMix mix;
  std::vector<Corpus> corpora;

  std::mutex mutex;  // guards the members below
  std::condition_variable changed;
  std::deque<Made> queue;     // batches from `position` on; an exception is the last
  std::vector<Rows> spare;    // free memory
  int64_t position = 0;       // of the next batch handed out
  int64_t next_position = 0;  // of the next batch made ahead
  int64_t generation = 0;     // counts seeks: a batch made before one is dropped
  bool stopping = false;
  std::thread thread;
};

TrainingSample DataLoader::State::sample(int64_t at) const {
  const auto place = mix.at(at);
  const Corpus& corpus = corpora[place.corpus];
  const auto [epoch, index] = corpus.order.at(place.position);
  return {place.corpus, epoch, index, corpus.packer.begin(epoch, index)};
}

void DataLoader::State::make(int64_t first, Rows& rows) const {
  const auto n_rows = static_cast<size_t>(config.batch_size);
  const auto seq = static_cast<size_t>(config.seq_len);
  rows.tokens.resize(n_rows * seq);
  rows.targets.resize(n_rows * seq);
  rows.document_positions.resize(config.document_mask ? n_rows * seq : 0);
  rows.positions.resize(n_rows);
  std::vector<int32_t> window(seq + 1);
  for (size_t row = 0; row < n_rows; ++row) {
    rows.positions[row] = first + config.rank * config.batch_size + static_cast<int64_t>(row);
    const auto place = sample(rows.positions[row]);
    const TokenSource& source = *corpora[place.corpus].source;
    source.copy(place.begin, window);
    const auto offset = static_cast<int64_t>(row * seq);
    std::copy(window.begin(), window.end() - 1, rows.tokens.begin() + offset);
    std::copy(window.begin() + 1, window.end(), rows.targets.begin() + offset);
    if (config.document_mask) {
      fill_document_positions(source.document_starts(place.begin, place.begin + config.seq_len),
                              place.begin,
                              std::span(rows.document_positions).subspan(row * seq, seq));
    }
  }
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
    Rows rows;
    if (!spare.empty()) {
      rows = std::move(spare.back());
      spare.pop_back();
    }
    lock.unlock();
    Made made;
    try {
      make(first, rows);
      made = std::move(rows);
    } catch (...) {
      made = std::current_exception();
    }
    lock.lock();
    if (made_in != generation) continue;
    queue.push_back(std::move(made));
    next_position += step();
    changed.notify_all();
  }
}

// An exception stays in the queue: every later call rethrows it, until a seek.
Batch DataLoader::State::take() {
  std::unique_lock lock(mutex);
  changed.wait(lock, [this] { return !queue.empty(); });
  if (const auto* error = std::get_if<std::exception_ptr>(&queue.front())) {
    std::rethrow_exception(*error);
  }
  Rows rows = std::get<Rows>(std::move(queue.front()));
  queue.pop_front();
  position += step();
  changed.notify_all();
  lock.unlock();
  Batch batch = to_batch(rows, config.pinned);
  lock.lock();
  spare.push_back(std::move(rows));
  return batch;
}

Batch DataLoader::State::make_now() {
  Rows rows;
  make(position, rows);
  position += step();
  return to_batch(rows, config.pinned);
}

DataLoader::DataLoader(std::vector<WeightedSource> sources, const DataLoaderConfig& config)
    : state_(std::make_unique<State>(std::move(sources), checked(config))) {}

DataLoader::DataLoader(std::shared_ptr<const TokenSource> source, const DataLoaderConfig& config)
    : DataLoader({WeightedSource{.source = std::move(source)}}, config) {}

DataLoader::~DataLoader() = default;

Batch DataLoader::next() {
  return state_->config.prefetch > 0 ? state_->take() : state_->make_now();
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

int64_t DataLoader::n_sequences(size_t corpus) const {
  return state_->corpora.at(corpus).packer.n_sequences();
}

TrainingSample DataLoader::sample(int64_t position) const { return state_->sample(position); }

}  // namespace dsmoe
