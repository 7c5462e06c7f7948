// Nodes that train on a device: the emulated one, which needs no GPU and is slow, on a job that is smaller
// than tiny.
#include <csignal>

#include <doctest/doctest.h>

#include "tests/faults/nodes.hpp"
#include "tests/faults/training.hpp"

using namespace troupe::test;

namespace {

std::vector<std::string> on_device(std::vector<std::string> more, const std::string& device = "emulated") {
  more.insert(more.end(), {"--device", device});
  return more;
}

std::vector<std::string> smaller(std::vector<std::string> more) {
  more.insert(more.end(), {"--set", "model.width=8", "--set", "model.inner=8", "--set", "model.heads=1",
                           "--set", "training.slots=2", "--set", "evaluation.every=0"});
  return more;
}

// Of a node on a device that nobody disturbs.
std::string expected(int steps) {
  const TemporaryFolder folder;
  return train_to_end(folder / "run", steps, smaller(on_device({"--nodes", "1"})));
}

}  // namespace

TEST_CASE("two nodes on devices end at the bits of one") {
  const TemporaryFolder folder;
  CHECK(train_to_end(folder / "run", 6, smaller(on_device({"--nodes", "2"}))) == expected(6));
}

TEST_CASE("a node on a device that is killed and started again catches up, and the bits are the same") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  Run run(out, train_command(out, 100'000, smaller(on_device({"--nodes", "2", "--restart"})), 5));
  REQUIRE(kill(process_of(out, "node1"), SIGKILL) == 0);
  run.wait_for("lost node node1");
  run.wait_for_view("node0, node1");
  const ProcessResult result = run.stop();
  CHECK(digest_of(result) == expected(last_step(result)));
}

TEST_CASE(
    "a node of two devices and a node of one are killed in turn and catch up, and the bits are the same") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  Run run(out, train_command(out, 100'000,
                             smaller(on_device({"--nodes", "2", "--restart"}, "emulated:2,emulated")), 5));
  for (const char* node : {"node0", "node1"}) {
    REQUIRE(kill(process_of(out, node), SIGKILL) == 0);
    run.wait_for(std::string("lost node ") + node);
    run.wait_for_view("node0, node1");
  }
  const ProcessResult result = run.stop();
  CHECK(digest_of(result) == expected(last_step(result)));
}

TEST_CASE("a checkpoint of a device is one of the CPU too, and the other way round") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  train_to_end(out, 2, smaller(on_device({"--nodes", "1"})));
  const auto on_cpu = smaller({"--nodes", "1", "--threads", "1", "--resume"});
  CHECK(train_to_end(out, 4, on_cpu) != expected(4));  // each rounds in its own way
  CHECK(train_to_end(out, 5, smaller(on_device({"--nodes", "1", "--resume"}))) != expected(5));
}

TEST_CASE("a node on a device and one on the CPU do not train together") {
  const TemporaryFolder folder;
  const Node alpha(folder, "alpha"), beta(folder, "beta", "", {"--device", "emulated"});
  const ProcessResult result =
      run(train_command(folder / "run", 6, smaller({"--cluster", cluster_file(folder, alpha, beta)})), {},
          kRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 1);
  CHECK(result.err.find("node beta differs from alpha: it has \"numerics=an emulated GPU") !=
        std::string::npos);
}
