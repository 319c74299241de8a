#include "common/machine_resources.h"

#include <catch2/catch.hpp>

#include "support/temporary_directory.h"

namespace dsmoe {
namespace {

TEST_CASE("machine resources: available memory is part of the machine's", "[common]") {
  CHECK(machine_memory_bytes() > 0);
  CHECK(available_memory_bytes() > 0);
  CHECK(available_memory_bytes() <= machine_memory_bytes());
}

TEST_CASE("machine resources: free disk is that of the nearest directory that exists", "[common]") {
  const TemporaryDirectory directory;
  CHECK(free_disk_bytes(directory.file("")) > 0);
  CHECK(free_disk_bytes(directory.file("not/yet/there")) > 0);
  CHECK(free_disk_bytes("/proc/self") == 0);
}

}  // namespace
}  // namespace dsmoe
