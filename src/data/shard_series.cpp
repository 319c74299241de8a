#include "data/shard_series.h"

#include <algorithm>

#include "common/error.h"
#include "data/token_shard.h"

namespace dsmoe {
namespace {

constexpr int64_t kCopyTokens = 1 << 20;

// Calls `add` for the tokens [begin, end) of a shard in parts that begin at most one document, at
// their first token.
template <class Add>
void for_each_part(const TokenShard& shard, int64_t begin, int64_t end, const Add& add) {
  std::vector<int64_t> starts;
  shard.append_document_starts(begin, end, 0, starts);
  auto next = starts.begin();
  while (begin < end) {
    const bool starts_document = next != starts.end() && *next == begin;
    if (starts_document) ++next;
    int64_t stop = std::min(end, begin + kCopyTokens);
    if (next != starts.end()) stop = std::min(stop, *next);
    std::vector<int32_t> ids(static_cast<size_t>(stop - begin));
    shard.copy(begin, ids);
    add(ids, starts_document);
    begin = stop;
  }
}

}  // namespace

void ShardSeries::add(std::span<const int32_t> ids, bool starts_document, int64_t n_bytes) {
  record_.n_bytes += n_bytes;
  n_tokens_ += static_cast<int64_t>(ids.size());
  if (ids.empty()) return;
  if (!shard_) open();
  if (starts_document) shard_->start_document();
  while (!ids.empty()) {
    if (!shard_) open();
    const auto n_free = static_cast<size_t>(shard_tokens_ - shard_->n_tokens());
    const auto part = ids.first(std::min(ids.size(), n_free));
    shard_->add(part);
    ids = ids.subspan(part.size());
    if (shard_->n_tokens() == shard_tokens_) finish();
  }
}

void ShardSeries::finish() {
  if (!shard_) return;
  ShardRecord made = shard_->finish();
  shard_.reset();
  made.name = shard_name(record_.shards.size());
  const TokenShard check(directory_ + "/" + made.name);
  record_.n_tokens += check.size();
  record_.n_documents += check.n_documents();
  record_.shards.push_back(std::move(made));
}

void ShardSeries::open() {
  shard_.emplace(io_,
                 directory_ + "/" + shard_name(record_.shards.size()),
                 record_.vocab_size,
                 record_.tokenizer);
}

void move_tail(Io& io,
               const std::string& directory,
               DatasetRecord& record,
               int64_t n_tokens,
               ShardSeries& target,
               const std::function<int64_t(const std::vector<int32_t>&)>& bytes_of) {
  const int64_t cut = record.n_tokens - n_tokens;
  bool is_first = true;
  const auto move = [&](const std::vector<int32_t>& ids, bool starts_document) {
    const int64_t n_bytes = bytes_of(ids);
    target.add(ids, starts_document || is_first, n_bytes);
    record.n_bytes -= n_bytes;
    is_first = false;
  };
  auto shards = std::move(record.shards);
  record.shards.clear();
  record.n_tokens = record.n_documents = 0;
  int64_t begin = 0;
  for (auto& made : shards) {
    const auto path = directory + "/" + made.name;
    const int64_t size = made.n_tokens;
    const int64_t kept = std::clamp<int64_t>(cut - begin, 0, size);
    begin += size;
    if (kept < size) {
      const TokenShard shard(path);
      for_each_part(shard, kept, size, move);
      if (kept == 0) {
        if (io.unlink(path) != 0) throw RunError(path + ": cannot be removed");
        continue;
      }
      TokenShardWriter head(io, path + ".head", record.vocab_size, record.tokenizer);
      for_each_part(shard, 0, kept, [&](const std::vector<int32_t>& ids, bool starts_document) {
        if (starts_document) head.start_document();
        head.add(ids);
      });
      const auto name = made.name;
      made = head.finish();
      made.name = name;
      rename_durably(io, path + ".head", path);
    }
    record.n_tokens += made.n_tokens;
    record.n_documents += made.n_documents;
    record.shards.push_back(std::move(made));
  }
}

}  // namespace dsmoe
