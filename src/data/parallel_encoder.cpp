#include "data/parallel_encoder.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <utility>

namespace dsmoe {
namespace {

constexpr size_t kPartBytes = 1 << 20;
constexpr size_t kKeptBytes = 16 << 20;
constexpr size_t kKeptParts = 1 << 16;

// Length of the first part of a text: whole lines, about kPartBytes.
size_t part_bytes(std::string_view text) {
  if (text.size() <= kPartBytes) return text.size();
  const size_t line_end = text.find('\n', kPartBytes);
  return line_end == text.npos ? text.size() : line_end + 1;
}

}  // namespace

ParallelEncoder::ParallelEncoder(const Tokenizer& tokenizer, int threads, Sink sink)
    : tokenizer_(tokenizer), threads_(threads), sink_(std::move(sink)) {}

void ParallelEncoder::add(std::string_view document) {
  const bool divisible = tokenizer_.encodes_lines_apart();
  bool is_first = true;
  while (!document.empty()) {
    const size_t size = divisible ? part_bytes(document) : document.size();
    const bool is_last = size == document.size();
    parts_.push_back({std::string(document.substr(0, size)), is_first, is_last, {}});
    document.remove_prefix(size);
    is_first = false;
    kept_bytes_ += size;
    if (kept_bytes_ >= kKeptBytes || parts_.size() >= kKeptParts) encode_parts();
  }
}

void ParallelEncoder::finish() { encode_parts(); }

void ParallelEncoder::encode(Part& part) const {
  const auto bos = tokenizer_.bos_id();
  const auto eos = tokenizer_.eos_id();
  if (part.is_first && bos) part.ids.push_back(*bos);
  const auto ids = tokenizer_.encode(part.text);
  part.ids.insert(part.ids.end(), ids.begin(), ids.end());
  if (part.is_last && eos && eos != bos) part.ids.push_back(*eos);
}

void ParallelEncoder::encode_parts() {
  std::atomic<size_t> next{0};
  std::vector<std::exception_ptr> errors(parts_.size());
  const auto work = [&] {
    for (size_t i = next++; i < parts_.size(); i = next++) {
      try {
        encode(parts_[i]);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    const size_t n_threads = std::min(static_cast<size_t>(threads_), parts_.size());
    for (size_t i = 1; i < n_threads; ++i) threads.emplace_back(work);
    work();
  }
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (errors[i]) std::rethrow_exception(errors[i]);
    sink_(parts_[i].ids);
  }
  parts_.clear();
  kept_bytes_ = 0;
}

}  // namespace dsmoe
