// Nodes that are killed, stopped, asked to leave and started again, in the middle of a job: it goes on, and
// ends with the bits of a run that nobody disturbed.
#include <csignal>
#include <filesystem>

#include <doctest/doctest.h>

#include "tests/faults/training.hpp"

using namespace troupe::test;

namespace {

// On local nodes, in a folder of its own.
class LocalRun : TemporaryFolder, public Run {
 public:
  explicit LocalRun(const char* nodes, std::vector<std::string> more = {})
      : Run(path() + "/run", command(path() + "/run", nodes, std::move(more))) {}
  void signal(const std::string& node, int number) const {
    REQUIRE(kill(process_of(out(), node), number) == 0);
  }
  void finish_and_check() {
    Run::finish_and_check();
    CHECK(all_nodes_end(out(), kRunDeadline));
  }

 private:
  static std::vector<std::string> command(const std::string& out, const char* nodes,
                                          std::vector<std::string> more) {
    more.insert(more.begin(), {"--nodes", nodes, "--threads", "1"});
    return train_command(out, 100'000, std::move(more), 5);
  }
};

}  // namespace

TEST_CASE("a killed member is not missed") {
  LocalRun run("3");
  run.signal("node1", SIGKILL);
  run.wait_for_view("node0, node2");
  run.finish_and_check();
}

TEST_CASE("a killed leader is not missed, nor is the next one") {
  LocalRun run("3");
  run.signal("node0", SIGKILL);
  run.wait_for_view("node1, node2");
  run.signal("node1", SIGKILL);
  run.wait_for_view("node2");
  run.finish_and_check();
}

TEST_CASE("nodes that are killed and started again take part again, the leader too") {
  LocalRun run("3", {"--restart"});
  for (const char* node : {"node2", "node0", "node1"}) {
    run.signal(node, SIGKILL);
    run.wait_for(std::string("lost node ") + node);
    run.wait_for_view("node0, node1, node2");
  }
  run.finish_and_check();
}

TEST_CASE("a node that ends soon after it was started again is started after a pause") {
  LocalRun run("2", {"--restart"});
  run.signal("node1", SIGKILL);
  run.wait_for_view("node0, node1");
  run.signal("node1", SIGKILL);
  run.wait_for("node node1 has ended soon after its start, next try in 1 s");
  run.wait_for_view("node0, node1");
  run.finish_and_check();
}

TEST_CASE("a node that cannot be started again is tried again, and the others go on") {
  LocalRun run("2", {"--restart"});
  const std::string log = run.out() + "/logs/node1.log";
  std::filesystem::remove(log);
  std::filesystem::create_directory(log);  // which no process can write into
  run.signal("node1", SIGKILL);
  run.wait_for("cannot start node node1 again, next try in 2 s: ");
  run.wait_for_view("node0");
  std::filesystem::remove(log);
  run.wait_for_view("node0, node1");
  run.finish_and_check();
}

TEST_CASE("a stopped node is left out, and comes back when it goes on, the leader too") {
  struct Case {
    const char* node;
    const char* others;
  };
  for (const Case& c : {Case{"node2", "node0, node1"}, Case{"node0", "node1, node2"}}) {
    CAPTURE(c.node);
    LocalRun run("3");
    run.signal(c.node, SIGSTOP);
    run.wait_for_view(c.others);
    run.signal(c.node, SIGCONT);
    run.wait_for_view("node0, node1, node2");
    run.finish_and_check();
  }
}

TEST_CASE("SIGTERM to a node lets it leave, and the others go on") {
  LocalRun run("3");
  run.signal("node0", SIGTERM);
  run.wait_for_view("node1, node2");
  run.signal("node2", SIGTERM);
  run.wait_for_view("node1");
  run.finish_and_check();
}

TEST_CASE("a second signal to a node ends its part at once, and not the others'") {
  LocalRun run("3");
  for (const int signal : {SIGINT, SIGTERM}) run.signal("node0", signal);
  run.wait_for_view("node1, node2");
  for (const int signal : {SIGINT, SIGTERM}) run.signal("node2", signal);
  run.wait_for_view("node1");
  run.finish_and_check();
}

TEST_CASE("SIGTERM to all nodes is a clean stop of the job") {
  LocalRun run("2");
  for (const char* node : {"node0", "node1"}) run.signal(node, SIGTERM);
  const ProcessResult result = run.wait();
  CAPTURE(result.err);
  CHECK(result.code == 130);
  CHECK(digest_of(result).size() == 64);
}

TEST_CASE("second signals to all nodes at once end the job, and its client") {
  LocalRun run("2");
  const pid_t nodes[] = {process_of(run.out(), "node0"), process_of(run.out(), "node1")};
  for (const int signal : {SIGINT, SIGTERM})
    for (const pid_t node : nodes) kill(node, signal);  // it may have ended at the first
  const ProcessResult result = run.wait();
  CAPTURE(result.err);
  // Both may leave at once, or one goes on alone for as long as its second signal takes to come.
  CHECK((result.code == 130 || result.code == 1));
  CHECK(all_nodes_end(run.out(), kRunDeadline));
}

TEST_CASE("when no node is left the job has failed, and goes on from its checkpoint") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  Process client(
      train_command(out, 100'000, {"--nodes", "2", "--threads", "1", "--set", "checkpoint.every=10"}, 5));
  REQUIRE(client.wait_for_output("step 30/", kRunDeadline));
  const pid_t nodes[] = {process_of(out, "node0"), process_of(out, "node1")};
  for (const pid_t node : nodes) REQUIRE(kill(node, SIGKILL) == 0);
  const auto lost = client.wait(kRunDeadline);
  REQUIRE(lost);
  CHECK(lost->code == 1);
  CHECK(lost->err.find("no node is left") != std::string::npos);
  Run(out, train_command(out, 100'000, {"--nodes", "2", "--threads", "1", "--resume"}, 5), "\nstep ")
      .finish_and_check();
}

TEST_CASE("a float sum depends on its members: a lost node ends the job by its name") {
  LocalRun run("3", {"--set", "training.sum=float"});
  run.signal("node1", SIGKILL);
  const ProcessResult result = run.wait();
  CAPTURE(result.err);
  CHECK(result.code == 1);
  CHECK(result.err.find("lost node node1") != std::string::npos);
  CHECK(all_nodes_end(run.out(), kRunDeadline));
}

TEST_CASE("with a float sum, too, a node may go once it has confirmed the final weights") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  Process client(train_command(out, 40, {"--nodes", "3", "--threads", "1", "--set", "training.sum=float"}));
  REQUIRE(client.wait_for_output("step 20/40", kRunDeadline));
  const pid_t slow = process_of(out, "node1"), fast = process_of(out, "node2");
  REQUIRE(wait_for_log(out, "node0", "every node has committed", kRunDeadline));
  ::kill(slow, SIGSTOP);  // before it can confirm, most of the time
  CHECK(wait_for_end(fast, std::chrono::seconds(30)));
  ::kill(slow, SIGCONT);
  const auto result = client.wait(kRunDeadline);
  REQUIRE(result);
  CAPTURE(result->err);
  CHECK(result->code == 0);
}
