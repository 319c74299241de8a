#include "train/replica_check.h"

#include <fmt/format.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/error.h"
#include "formats/hash.h"

namespace dsmoe {
namespace {

constexpr size_t kHashLength = 16;

std::string hashes_of(const NamedTensors& tensors) {
  std::string hashes;
  for (const auto& [name, tensor] : tensors) {
    const auto host = tensor.detach().contiguous().cpu();
    hashes += hash64({static_cast<const char*>(host.const_data_ptr()), host.nbytes()});
  }
  return hashes;
}

// The ranks without the most frequent hash; on a tie the hash of rank 0 counts as most frequent.
std::vector<size_t> minority(const std::vector<std::string_view>& hashes) {
  std::map<std::string_view, size_t> counts;
  for (const auto hash : hashes) ++counts[hash];
  auto most = hashes[0];
  for (const auto& [hash, count] : counts) {
    if (count > counts[most]) most = hash;
  }
  std::vector<size_t> ranks;
  for (size_t rank = 0; rank < hashes.size(); ++rank) {
    if (hashes[rank] != most) ranks.push_back(rank);
  }
  return ranks;
}

}  // namespace

void check_replicas(RankGroup& ranks, const NamedTensors& tensors, int64_t step) {
  if (ranks.world_size() == 1) return;
  const auto all = ranks.all_gather(hashes_of(tensors), "comparing the weights");
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::vector<std::string_view> hashes;
    for (const auto& of_rank : all) {
      hashes.push_back(std::string_view(of_rank).substr(i * kHashLength, kHashLength));
    }
    const auto different = minority(hashes);
    if (different.empty()) continue;
    throw RunError(
        fmt::format("step {}: expected the same weights on every rank, got others in '{}' on rank "
                    "{}; resume from a checkpoint of an earlier step, and check the memory of that "
                    "rank's machine",
                    step,
                    tensors[i].first,
                    fmt::join(different, ", ")));
  }
}

}  // namespace dsmoe
