// The drill itself: faults from a seed and from a plan, and what it says of them.
#include <csignal>
#include <filesystem>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tests/faults/training.hpp"

using namespace troupe::test;

namespace {

std::vector<std::string> drill_command(const std::string& out, std::vector<std::string> more) {
  std::vector<std::string> command = {
      TROUPE_PROGRAM, "drill", "--job", std::string(TROUPE_JOBS) + "/tiny.toml", "--out", out, "--json"};
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

nlohmann::json drill(const std::string& out, std::vector<std::string> more) {
  const ProcessResult result = run(drill_command(out, std::move(more)), {}, kWholeRunDeadline);
  CAPTURE(result.out);
  CAPTURE(result.err);
  REQUIRE(result.code == 0);
  return nlohmann::json::parse(result.out);
}

}  // namespace

TEST_CASE("faults of many kinds leave the weights and the ledger as they would be without") {
  const char* kinds[] = {"kill,terminate,clock_jump", "stop,partition", "delay,loss,corrupt",
                         "disk_full,kill"};
  for (const char* some : kinds) {
    CAPTURE(some);
    const TemporaryFolder folder;
    const auto result =
        drill(folder / "run", {"--nodes", "3", "--faults", "6", "--seed", "5", "--kinds", some});
    CHECK(result["passed"] == true);
    CHECK(result["steps_lost"] == 0);
    CHECK(result["ledger_problem"] == "");
    CHECK(result["digest"] == result["expected_digest"]);
    REQUIRE(result["faults"].size() == 6);
    for (const auto& fault : result["faults"]) {
      CAPTURE(fault.dump());
      CHECK(fault["injected"] == true);
      CHECK(std::string(some).find(fault["kind"].get<std::string>()) != std::string::npos);
    }
  }
}

TEST_CASE("a plan is carried out as it is written, and the job ends where it says") {
  const TemporaryFolder folder;
  const std::string plan = folder.write("plan.toml",
                                        "[[faults]]\nkind = \"kill\"\nnode = \"node1\"\nat_step = 20\n"
                                        "[[faults]]\nkind = \"terminate\"\nnode = \"node0\"\nat_step = 60\n");
  // The third node is there for node0, however long node1 takes to come back.
  const auto result = drill(folder / "run", {"--nodes", "3", "--plan", plan, "--steps", "400"});
  CHECK(result["steps"] == 400);
  REQUIRE(result["faults"].size() == 2);
  CHECK(result["faults"][0]["kind"] == "kill");
  CHECK(result["faults"][0]["step"] >= 20);
  CHECK(result["faults"][0]["noticed_ms"] >= 0);
  CHECK(result["faults"][1]["node"] == "node0");
  CHECK(result["passed"] == true);
  CHECK(std::filesystem::exists(folder / "run/ledger/node1.jsonl"));
}

TEST_CASE("a drill whose job ends before its faults has not passed") {
  const TemporaryFolder folder;
  const std::string plan =
      folder.write("plan.toml", "[[faults]]\nkind = \"kill\"\nnode = \"node1\"\nat_step = 1000\n");
  const ProcessResult result = run(
      drill_command(folder / "run", {"--nodes", "2", "--plan", plan, "--steps", "5"}), {}, kWholeRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 1);
  const auto said = nlohmann::json::parse(result.out);
  CHECK(said["digest"] == said["expected_digest"]);
  CHECK(said["faults_missed"] == 1);
}

TEST_CASE("the nodes of a drill that is killed die with it, also one that it has stopped") {
  const TemporaryFolder folder;
  const std::string plan =
      folder.write("plan.toml",
                   "[[faults]]\nkind = \"stop\"\nnode = \"node1\"\nat_step = 5\nlasts_ms = 1000000\n"
                   "[[faults]]\nkind = \"kill\"\nnode = \"node0\"\nat_step = 1000000\n");
  Process killed(drill_command(folder / "run", {"--nodes", "3", "--plan", plan}));
  REQUIRE(killed.wait_for_output("] stop node1", kRunDeadline));
  killed.signal(SIGKILL);
  const auto end = killed.wait(kRunDeadline);
  REQUIRE(end);
  CHECK(all_nodes_end(folder / "run", kRunDeadline));
}

TEST_CASE("a node that is told to leave while it heals leaves") {
  const TemporaryFolder folder;
  std::string plan;
  for (const char* later_ms : {"2", "6", "10", "15", "20", "30"})
    plan += std::string("[[faults]]\nkind = \"flip\"\nnode = \"node1\"\nafter_ms = 300\n") +
            "[[faults]]\nkind = \"terminate\"\nnode = \"node1\"\nafter_ms = " + later_ms + "\n";
  const auto result = drill(folder / "run", {"--nodes", "3", "--plan", folder.write("plan.toml", plan)});
  CHECK(result["faults"].size() == 12);
  CHECK(result["passed"] == true);
}

TEST_CASE("mistakes in a drill are said in one line") {
  const TemporaryFolder folder;
  const auto refused = [&](std::vector<std::string> more, const std::string& says) {
    const ProcessResult result = run(drill_command(folder / "run", std::move(more)), {}, kRunDeadline);
    CAPTURE(result.err);
    CHECK(result.code == 2);
    CHECK(result.err.find(says) != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(folder / "run"));
  };
  refused({"--kinds", "flood"}, "there is no fault \"flood\"; there are kill, terminate");
  refused({"--faults", "-1"}, "-1 not in range");
  refused({"--set", "training.sum=float"}, "a drill needs training.sum = \"exact\"");
  const std::string stranger = folder.write("plan.toml", "[[faults]]\nkind = \"kill\"\nnode = \"zeta\"\n");
  refused({"--plan", stranger}, "faults[0].node is \"zeta\"; it must be one of node0, node1, node2");
  const std::string empty = folder.write("empty.toml", "");
  refused({"--plan", empty}, "no [[faults]] entry");
}
