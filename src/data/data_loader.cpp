#include "data/data_loader.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

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

// One corpus with its cut into sequences and their order.
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

using Made = std::variant<Batch, std::exception_ptr>;

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
  Batch make(int64_t first) const;
  void read_ahead();
  Batch take();

  DataLoaderConfig config;
  CorpusMix mix;
  std::vector<Corpus> corpora;

  std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  std::deque<Made> queue;     // of the batches from `position` on; an exception is the last
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

Batch DataLoader::State::make(int64_t first) const {
  const int64_t n_rows = config.batch_size;
  const int64_t seq = config.seq_len;
  Batch batch;
  batch.tokens = at::empty({n_rows, seq}, at::kLong);   // [batch, seq]
  batch.targets = at::empty({n_rows, seq}, at::kLong);  // [batch, seq]
  if (config.document_mask) batch.document_positions = at::empty({n_rows, seq}, at::kLong);
  auto* token = batch.tokens.data_ptr<int64_t>();
  auto* target = batch.targets.data_ptr<int64_t>();
  std::vector<int32_t> window(static_cast<size_t>(seq) + 1);
  for (int64_t row = 0; row < n_rows; ++row) {
    batch.positions.push_back(first + config.rank * n_rows + row);
    const auto place = sample(batch.positions.back());
    const TokenSource& source = *corpora[place.corpus].source;
    source.copy(place.begin, window);
    token = std::copy(window.begin(), window.end() - 1, token);
    target = std::copy(window.begin() + 1, window.end(), target);
    if (config.document_mask) {
      fill_document_positions(
          source.document_starts(place.begin, place.begin + seq),
          place.begin,
          {batch.document_positions.data_ptr<int64_t>() + row * seq, static_cast<size_t>(seq)});
    }
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
    next_position += step();
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
  position += step();
  changed.notify_all();
  return batch;
}

DataLoader::DataLoader(std::vector<WeightedSource> sources, const DataLoaderConfig& config)
    : state_(std::make_unique<State>(std::move(sources), checked(config))) {}

DataLoader::DataLoader(std::shared_ptr<const TokenSource> source, const DataLoaderConfig& config)
    : DataLoader({WeightedSource{.source = std::move(source)}}, config) {}

DataLoader::~DataLoader() = default;

Batch DataLoader::next() {
  if (state_->config.prefetch > 0) return state_->take();
  Batch batch = state_->make(state_->position);
  state_->position += state_->step();
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

int64_t DataLoader::n_sequences(size_t corpus) const {
  return state_->corpora.at(corpus).packer.n_sequences();
}

TrainingSample DataLoader::sample(int64_t position) const { return state_->sample(position); }

}  // namespace dsmoe
