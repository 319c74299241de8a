#include "data/parallel_encoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr size_t kPieceBytes = 1 << 18;
constexpr size_t kMaxPieces = 1 << 12;  // of one job
constexpr size_t kJobsPerThread = 4;

}  // namespace

ParallelEncoder::ParallelEncoder(const Tokenizer& tokenizer, int threads, Sink sink)
    : tokenizer_(tokenizer),
      max_jobs_(kJobsPerThread * static_cast<size_t>(threads)),
      sink_(std::move(sink)),
      divide_at_bytes_(kPieceBytes),
      filling_(std::make_unique<Job>()) {
  for (int i = 1; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

ParallelEncoder::~ParallelEncoder() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  has_work_.notify_all();
}

void ParallelEncoder::add(const TextPart& part) {
  if (part.is_first) pending_is_first_ = true;
  pending_ += part.text;
  if (part.is_last) {
    keep(std::exchange(pending_, {}), /*is_last=*/true);
    divide_at_bytes_ = kPieceBytes;
    return;
  }
  if (pending_.size() < divide_at_bytes_) return;
  if (const size_t size = tokenizer_.divide(pending_); size > 0) {
    std::string rest = pending_.substr(size);
    pending_.resize(size);
    keep(std::exchange(pending_, std::move(rest)), /*is_last=*/false);
    divide_at_bytes_ = kPieceBytes;
    return;
  }
  // Asks again at twice the size only: a long text without a place to cut stays linear work.
  divide_at_bytes_ = 2 * pending_.size();
  if (pending_.size() > kMaxUndividedBytes) {
    throw Error(
        fmt::format("tokenize: expected a place where tokenizer {} can divide a document at "
                    "least every {} bytes, got none in {}; separate the documents",
                    tokenizer_.fingerprint(),
                    kMaxUndividedBytes,
                    pending_.size()));
  }
}

void ParallelEncoder::keep(std::string text, bool is_last) {
  longest_text_bytes_ = std::max(longest_text_bytes_, text.size());
  filling_bytes_ += text.size();
  filling_->pieces.push_back({std::move(text), pending_is_first_, is_last, {}});
  pending_is_first_ = false;
  if (filling_bytes_ >= kPieceBytes || filling_->pieces.size() >= kMaxPieces) submit();
}

void ParallelEncoder::submit() {
  auto job = std::exchange(filling_, std::make_unique<Job>());
  filling_bytes_ = 0;
  if (threads_.empty()) {
    encode(*job);
    give_out(*job);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(job.get());
  }
  window_.push_back(std::move(job));
  has_work_.notify_one();
  while (window_.size() > max_jobs_) give_out_oldest();
}

void ParallelEncoder::finish() {
  if (!filling_->pieces.empty()) submit();
  while (!window_.empty()) give_out_oldest();
}

// While the oldest job is not done, this thread encodes too.
void ParallelEncoder::give_out_oldest() {
  {
    std::unique_lock lock(mutex_);
    while (!window_.front()->done) {
      if (!encode_one(lock)) has_result_.wait(lock);
    }
  }
  const auto job = std::move(window_.front());
  window_.pop_front();
  give_out(*job);
}

void ParallelEncoder::give_out(Job& job) {
  if (job.error) std::rethrow_exception(job.error);
  for (const Piece& piece : job.pieces) {
    sink_(piece.ids, piece.is_first, piece.n_bytes);
  }
}

void ParallelEncoder::encode(Job& job) const {
  const auto eos = tokenizer_.eos_id();
  // A token that both begins and ends documents appears once between them.
  const bool is_boundary = tokenizer_.special_tokens().adds_bos && eos == tokenizer_.bos_id();
  try {
    for (Piece& piece : job.pieces) {
      piece.ids = piece.is_first ? tokenizer_.encode_with_bos(piece.text)
                                 : tokenizer_.encode_rest(piece.text);
      if (piece.is_last && eos && !is_boundary) piece.ids.push_back(*eos);
      piece.n_bytes = static_cast<int64_t>(piece.text.size());
      piece.text = {};
    }
  } catch (...) {
    job.error = std::current_exception();
  }
}

// Takes the next waiting job; returns false if there is none.
bool ParallelEncoder::encode_one(std::unique_lock<std::mutex>& lock) {
  if (waiting_.empty()) return false;
  Job* job = waiting_.front();
  waiting_.pop_front();
  lock.unlock();
  encode(*job);
  lock.lock();
  job->done = true;
  has_result_.notify_one();
  return true;
}

void ParallelEncoder::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    has_work_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    encode_one(lock);
  }
}

}  // namespace dsmoe
