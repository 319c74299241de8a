#include "distributed/launch_env.h"

#include <catch2/catch.hpp>
#include <map>
#include <vector>

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

TEST_CASE("read_launch_env: no variables mean one rank", "[distributed]") {
  const auto env = read({{"MASTER_ADDR", "unused"}, {"LOCAL_RANK", "3"}});
  CHECK(env.rank == 0);
  CHECK(env.world_size == 1);
  CHECK(env.launcher.empty());
}

TEST_CASE("read_launch_env: reads torchrun, with and without the agent's store", "[distributed]") {
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
  CHECK(read(variables).rendezvous.start == 0);
  variables["TORCHELASTIC_RESTART_COUNT"] = "2";
  CHECK(read(variables).rendezvous.start == 2);
  // They override the variables of the batch system around them.
  variables["SLURM_PROCID"] = "0";
  variables["SLURM_NTASKS"] = "2";
  variables["SLURM_STEP_ID"] = "0";
  env = read(variables);
  CHECK(env.rank == 5);
  CHECK(env.launcher == "torchrun");
}

TEST_CASE("read_launch_env: Slurm's first host is the host of rank 0", "[distributed]") {
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

namespace {

// Slurm's variables and the ranks that they mean.
struct SlurmCase {
  std::string name;
  Variables variables;
  int64_t rank;
  int64_t world_size;
  int64_t local_size;
};

// The job: 8 tasks, 4 on each of two nodes. `more` overrides.
Variables in_job(Variables more) {
  more.insert({{"SLURM_JOB_ID", "7"},
               {"SLURM_NTASKS", "8"},
               {"SLURM_NTASKS_PER_NODE", "4"},
               {"SLURM_TASKS_PER_NODE", "4(x2)"},
               {"SLURM_JOB_NODELIST", "node[1-2]"},
               {"SLURM_PROCID", "0"},
               {"SLURM_LOCALID", "0"},
               {"SLURM_NODEID", "0"}});
  return more;
}

// A step of srun.
Variables in_step(const std::string& n_tasks, const std::string& per_node, Variables more) {
  more.insert({{"SLURM_STEP_ID", "0"},
               {"SLURM_STEP_NUM_TASKS", n_tasks},
               {"SLURM_STEP_TASKS_PER_NODE", per_node},
               {"SLURM_STEP_NODELIST", "node[1-2]"}});
  return in_job(more);
}

const std::vector<SlurmCase> kSlurmCases = {
    {"a batch script", in_job({}), 0, 1, 1},
    {"a batch script with the id of its step",
     in_job({{"SLURM_STEP_ID", "4294967291"}, {"SLURM_STEP_NUM_TASKS", "1"}}),
     0,
     1,
     1},
    {"the interactive shell of salloc",
     in_job({{"SLURM_STEP_ID", "4294967290"}, {"SLURM_STEP_NUM_TASKS", "1"}}),
     0,
     1,
     1},
    {"the same without the step's count", in_job({{"SLURM_STEP_ID", "4294967290"}}), 0, 1, 1},
    {"srun --pty bash, then the program", in_step("1", "1", {}), 0, 1, 1},
    {"srun --ntasks=1 inside a job of 8", in_step("1", "1", {{"SLURM_STEP_ID", "3"}}), 0, 1, 1},
    {"srun with all tasks of the job",
     in_step("8", "4(x2)", {{"SLURM_PROCID", "5"}, {"SLURM_LOCALID", "1"}, {"SLURM_NODEID", "1"}}),
     5,
     8,
     4},
    {"srun --ntasks=2 inside a job of 8", in_step("2", "2", {{"SLURM_PROCID", "1"}}), 1, 2, 2},
    {"srun --ntasks=2 --ntasks-per-node=1",
     in_step("2", "1(x2)", {{"SLURM_PROCID", "1"}, {"SLURM_NODEID", "1"}}),
     1,
     2,
     1},
    {"more tasks than the job: srun --overcommit --ntasks=16",
     in_step("16", "8(x2)", {{"SLURM_PROCID", "15"}, {"SLURM_NODEID", "1"}}),
     15,
     16,
     8},
    {"unlike nodes, the last of the repeated ones",
     in_step("11", "4(x2),3", {{"SLURM_PROCID", "7"}, {"SLURM_NODEID", "1"}}),
     7,
     11,
     4},
    {"unlike nodes, the one after them",
     in_step("11", "4(x2),3", {{"SLURM_PROCID", "10"}, {"SLURM_NODEID", "2"}}),
     10,
     11,
     3},
    {"a list that is too short", in_step("8", "4", {{"SLURM_NODEID", "1"}}), 0, 8, 1},
    {"a Slurm without the step's variables",
     in_job({{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "6"}}),
     6,
     8,
     4},
    {"the same with fewer tasks than the job has on a node",
     in_job({{"SLURM_STEP_ID", "0"}, {"SLURM_NTASKS", "2"}}),
     0,
     2,
     2},
};

}  // namespace

TEST_CASE("read_launch_env: the tasks of Slurm's step are the ranks, not those of the job",
          "[distributed]") {
  for (const auto& slurm : kSlurmCases) {
    CAPTURE(slurm.name);
    const auto env = read(slurm.variables);
    CHECK(env.rank == slurm.rank);
    CHECK(env.world_size == slurm.world_size);
    CHECK(env.local_size == slurm.local_size);
    CHECK(env.rendezvous.address == (slurm.world_size > 1 ? "node1" : ""));
  }
}

TEST_CASE("read_launch_env: the error names a wrong variable of Slurm", "[distributed]") {
  const auto [variables, text] = GENERATE(table<Variables, std::string>({
      {in_step("two", "2", {}), "SLURM_STEP_NUM_TASKS: expected an integer"},
      {in_step("2", "2", {{"SLURM_PROCID", "2"}}), "SLURM_PROCID: expected an integer from 0 to 1"},
      {in_step("2", "2(y)", {}), "SLURM_STEP_TASKS_PER_NODE: expected an integer"},
      {in_step("2", "1(x", {}), "SLURM_STEP_TASKS_PER_NODE: expected an integer"},
      {in_job({{"SLURM_STEP_ID", "one"}}), "SLURM_STEP_ID: expected an integer"},
  }));
  REQUIRE_THROWS_WITH(read(variables), Catch::Contains(text));
}

TEST_CASE("read_launch_env: reads Open MPI and PMI", "[distributed]") {
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

TEST_CASE("read_launch_env: the error names the missing or wrong variable", "[distributed]") {
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
