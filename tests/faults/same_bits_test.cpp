// The promise: the same final weights however the work was spread.
#include <doctest/doctest.h>
#include <sched.h>

#include "tests/faults/training.hpp"

using namespace troupe::test;

namespace {

// A core that this process may use: not everywhere is core 0 among them.
std::string allowed_core() {
  cpu_set_t set;
  CPU_ZERO(&set);
  REQUIRE(sched_getaffinity(0, sizeof set, &set) == 0);
  int core = 0;
  while (!CPU_ISSET(core, &set)) ++core;
  return std::to_string(core);
}

}  // namespace

TEST_CASE("the final weights are the same for any number of nodes and threads, over either transport") {
  struct Case {
    const char* nodes;
    const char* threads;
    const char* transport;
  };
  const Case cases[] = {{"1", "2", "auto"}, {"2", "1", "tcp"}, {"2", "2", "shm"},
                        {"3", "1", "shm"},  {"3", "2", "tcp"}, {"5", "1", "tcp"}};
  for (const Case& c : cases) {
    CAPTURE(c.nodes);
    CAPTURE(c.threads);
    CAPTURE(c.transport);
    const TemporaryFolder folder;
    CHECK(train_to_end(folder / "run", 30,
                       {"--nodes", c.nodes, "--threads", c.threads, "--transport", c.transport}) ==
          expected_digest(30));
  }
}

TEST_CASE("the final weights are the same on one core") {
  const TemporaryFolder folder;
  std::vector<std::string> command = train_command(folder / "run", 30, {"--nodes", "2", "--threads", "2"});
  command.insert(command.begin(), {"taskset", "-c", allowed_core()});
  const ProcessResult result = run(command, {}, kRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 0);
  CHECK(digest_of(result) == expected_digest(30));
}

TEST_CASE("narrow gradients and the float sum train too; narrow ones keep the promise") {
  const TemporaryFolder folder;
  const auto narrow = [&](const std::string& name, const char* nodes) {
    return train_to_end(folder / name, 30, {"--nodes", nodes, "--threads", "1", "--set", "training.bits=8"});
  };
  const std::string one = narrow("one", "1");
  CHECK(one == narrow("three", "3"));
  CHECK(one != expected_digest(30));
  train_to_end(folder / "float", 30, {"--nodes", "2", "--threads", "1", "--set", "training.sum=float"});
}

TEST_CASE("reports and checkpoints do not show in the weights") {
  const TemporaryFolder folder;
  CHECK(train_to_end(folder / "run", 30,
                     {"--threads", "1", "--set", "checkpoint.every=7", "--set", "checkpoint.keep=1"}) ==
        expected_digest(30));
}
