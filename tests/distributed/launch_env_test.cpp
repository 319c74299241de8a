#include "distributed/launch_env.h"

#include <catch2/catch.hpp>
#include <map>

#include "common/error.h"

namespace dsmoe {
namespace {

using Variables = std::map<std::string, std::string>;

LaunchEnv read(const Variables& variables) {
  return read_launch_env([&](const std::string& name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional<std::string>(found->second);
  });
}

}  // namespace

TEST_CASE("read_launch_env: nothing set is one rank", "[distributed]") {
  const auto env = read({{"MASTER_ADDR", "unused"}, {"LOCAL_RANK", "3"}});
  CHECK(env.rank == 0);
  CHECK(env.world_size == 1);
  CHECK(env.launcher.empty());
}

TEST_CASE("read_launch_env: torchrun, with and without the agent's store", "[distributed]") {
  Variables variables = {{"RANK", "5"},
                         {"WORLD_SIZE", "8"},
                         {"LOCAL_RANK", "1"},
                         {"LOCAL_WORLD_SIZE", "4"},
                         {"MASTER_ADDR", "node0"},
                         {"MASTER_PORT", "1234"}};
  auto env = read(variables);
  CHECK(env.rank == 5);
  CHECK(env.world_size == 8);
  CHECK(env.local_rank == 1);
  CHECK(env.local_size == 4);
  CHECK(env.rendezvous.address == "node0");
  CHECK(env.rendezvous.port == 1234);
  CHECK_FALSE(env.rendezvous.is_hosted);
  variables["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  CHECK(read(variables).rendezvous.is_hosted);
  // They win over what the batch system around them set.
  variables["SLURM_PROCID"] = "0";
  variables["SLURM_NTASKS"] = "2";
  variables["SLURM_STEP_ID"] = "0";
  env = read(variables);
  CHECK(env.rank == 5);
  CHECK(env.launcher == "torchrun");
}

TEST_CASE("read_launch_env: Slurm's first host is where rank 0 is", "[distributed]") {
  const auto [list, host] =
      GENERATE(table<std::string, std::string>({{"node7", "node7"},
                                                {"node[03-05,9]", "node03"},
                                                {"gpu[12]", "gpu12"},
                                                {"a1,b[2-3]", "a1"},
                                                {"rack-2-n[1,4]", "rack-2-n1"}}));
  const auto env = read({{"SLURM_PROCID", "1"},
                         {"SLURM_NTASKS", "4"},
                         {"SLURM_LOCALID", "1"},
                         {"SLURM_STEP_ID", "0"},
                         {"SLURM_STEP_NODELIST", list}});
  CHECK(env.rank == 1);
  CHECK(env.world_size == 4);
  CHECK(env.rendezvous.address == host);
}

TEST_CASE("read_launch_env: a batch script of Slurm outside srun is one rank", "[distributed]") {
  CHECK(read({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}).world_size == 1);
}

TEST_CASE("read_launch_env: Open MPI and PMI", "[distributed]") {
  const auto open_mpi = read({{"OMPI_COMM_WORLD_RANK", "2"},
                              {"OMPI_COMM_WORLD_SIZE", "3"},
                              {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
                              {"MASTER_ADDR", "h"}});
  CHECK(open_mpi.rank == 2);
  CHECK(open_mpi.local_rank == 0);
  CHECK(open_mpi.rendezvous.port == 29500);
  const auto pmi = read({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"DSMOE_RENDEZVOUS_FILE", "/x/y"}});
  CHECK(pmi.rank == 1);
  CHECK(pmi.rendezvous.file == "/x/y");
}

TEST_CASE("read_launch_env: says which variable is missing or wrong", "[distributed]") {
  const auto [variables, text] = GENERATE(table<Variables, std::string>({
      {{{"RANK", "1"}}, "WORLD_SIZE: expected a number"},
      {{{"WORLD_SIZE", "2"}}, "RANK: expected a number"},
      {{{"RANK", "2"}, {"WORLD_SIZE", "2"}}, "RANK: expected an integer from 0 to 1, got '2'"},
      {{{"RANK", "-1"}, {"WORLD_SIZE", "2"}}, "got '-1'"},
      {{{"RANK", "0"}, {"WORLD_SIZE", "two"}}, "WORLD_SIZE: expected an integer"},
      {{{"RANK", "0"}, {"WORLD_SIZE", "2"}}, "MASTER_ADDR: expected the host of rank 0"},
      {{{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "h"}, {"MASTER_PORT", "0"}},
       "MASTER_PORT"},
      {{{"OMPI_COMM_WORLD_RANK", "0"}}, "OMPI_COMM_WORLD_SIZE: expected a number"},
  }));
  REQUIRE_THROWS_WITH(read(variables), Catch::Contains(text));
}

}  // namespace dsmoe
