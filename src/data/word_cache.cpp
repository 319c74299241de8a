#include "data/word_cache.h"

#include <utility>

namespace dsmoe {
namespace {

constexpr size_t kMaxWords = 1 << 18;
constexpr size_t kMaxWordBytes = 64;

}  // namespace

const std::vector<int32_t>* WordCache::find(std::string_view word) const {
  if (word.size() > kMaxWordBytes) return nullptr;
  const auto found = words_.find(word);
  return found == words_.end() ? nullptr : &found->second;
}

void WordCache::insert(std::string_view word, const std::vector<int32_t>& ids) {
  if (word.size() > kMaxWordBytes) return;
  if (words_.size() >= kMaxWords) words_.clear();
  words_.emplace(word, ids);
}

WordCachePool::Loan::Loan(WordCachePool& pool, std::unique_ptr<WordCache> cache)
    : pool_(pool), cache_(std::move(cache)) {}

WordCachePool::Loan::~Loan() {
  const std::lock_guard lock(pool_.mutex_);
  pool_.idle_.push_back(std::move(cache_));
}

WordCachePool::Loan WordCachePool::borrow() {
  std::unique_ptr<WordCache> cache;
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      cache = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (cache == nullptr) cache = std::make_unique<WordCache>();
  return Loan(*this, std::move(cache));
}

}  // namespace dsmoe
