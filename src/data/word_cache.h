#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace dsmoe {

/// Caches the ids of words in bounded memory. For one thread.
class WordCache {
 public:
  /// Returns the word's ids, valid until the next insert, or null.
  const std::vector<int32_t>* find(std::string_view word) const;
  /// Long words are not cached; a full cache is cleared.
  void insert(std::string_view word, const std::vector<int32_t>& ids);

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view word) const { return std::hash<std::string_view>()(word); }
  };
  std::unordered_map<std::string, std::vector<int32_t>, Hash, std::equal_to<>> words_;
};

/// Lends each caller a separate cache; a returned cache keeps its words for the next caller.
class WordCachePool {
 public:
  class Loan {
   public:
    Loan(WordCachePool& pool, std::unique_ptr<WordCache> cache);
    ~Loan();
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    WordCache* operator->() const { return cache_.get(); }

   private:
    WordCachePool& pool_;
    std::unique_ptr<WordCache> cache_;
  };

  Loan borrow();

 private:
  std::mutex mutex_;  // guards the members below
  std::vector<std::unique_ptr<WordCache>> idle_;
};

}  // namespace dsmoe
