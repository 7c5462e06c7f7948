// Nodes that no cluster file knows: they ask a running node what there is to do, and take part.
#include <csignal>
#include <memory>

#include <doctest/doctest.h>

#include "tests/faults/nodes.hpp"
#include "tests/faults/training.hpp"

using namespace troupe::test;

namespace {

constexpr char kGuests[] = "guests = 3\n";

void expect_end(Process& node, int signal, int code) {
  node.signal(signal);
  const auto end = node.wait(kRunDeadline);
  REQUIRE(end);
  CAPTURE(end->out);
  CAPTURE(end->err);
  CHECK(end->code == code);
}

}  // namespace

TEST_CASE("guests join a running job, carry it on when all others are dead, and leave") {
  const TemporaryFolder folder;
  Node alpha(folder, "alpha", kGuests), beta(folder, "beta", kGuests);
  const std::string cluster = cluster_file(folder, alpha, beta, kGuests);
  // In the end the first guest's own folder proves all: what happened before it came has come with the state.
  Run run(folder / "first", train_command(folder / "run", 100'000, {"--cluster", cluster}, 5));
  // One asks the leader, the others ask nodes that do not lead; each has a folder of its own.
  Node first(node_command({"--join", alpha.address, "--name", "guest-1", "--out", folder / "first"}));
  Node second(node_command({"--join", beta.address, "--name", "guest-2", "--out", folder / "second"}));
  run.wait_for_view("alpha, beta, guest-1, guest-2");
  alpha.process.signal(SIGKILL);
  beta.process.signal(SIGKILL);
  run.wait_for_view("guest-1, guest-2");
  Node third(node_command({"--join", second.address, "--out", folder / "third"}));
  CHECK(third.name == "guest-3");  // the other places are taken
  run.wait_for_view("guest-1, guest-2, guest-3");
  expect_end(second.process, SIGTERM, 0);
  run.wait_for_view("guest-1, guest-3");
  expect_end(third.process, SIGTERM, 0);
  CAPTURE(first.process.err());
  run.finish_and_check();
  expect_end(first.process, SIGTERM, 0);
}

TEST_CASE("a job grows from one node to eight and shrinks to another one, in the same bits") {
  const TemporaryFolder folder;
  const std::string more = "guests = 7\n";
  Node alpha(node_command({"--cluster", folder.write("alpha.toml", cluster_text({{"alpha", kAnyPort}}, more)),
                           "--name", "alpha"}));
  const std::string cluster = folder.write("cluster.toml", cluster_text({{"alpha", alpha.address}}, more));
  Run run(folder / "run", train_command(folder / "run", 100'000, {"--cluster", cluster}, 5));
  std::string names = "alpha";
  std::vector<std::unique_ptr<Node>> guests;
  for (int i = 1; i <= 7; ++i) {
    const std::string name = "guest-" + std::to_string(i);
    guests.push_back(std::make_unique<Node>(node_command({"--join", alpha.address, "--name", name})));
    names += ", " + name;
    run.wait_for_view(names);
  }
  expect_end(alpha.process, SIGTERM, 0);
  for (size_t i : {0, 1, 2, 4, 5, 6}) expect_end(guests[i]->process, SIGTERM, 0);
  run.wait_for_view("guest-4");
  run.finish_and_check();
}

TEST_CASE("a float sum depends on its members: a guest finds no part in the job, which goes on") {
  const TemporaryFolder folder;
  const std::string more = std::string(kGuests) + "patience_ms = 30000\n";  // a lost node would end the job
  const Node alpha(folder, "alpha", more), beta(folder, "beta", more);
  const std::string cluster = cluster_file(folder, alpha, beta, more);
  Run job(folder / "run",
          train_command(folder / "run", 100'000, {"--cluster", cluster, "--set", "training.sum=float"}, 5));
  Node guest(node_command({"--join", alpha.address, "--name", "guest-1"}));
  job.wait_for("step 600/");  // some seconds, in each of which a guest asks once
  const ProcessResult result = job.stop();
  CHECK(result.err.find("guest-1") == std::string::npos);
  expect_end(guest.process, SIGTERM, 0);

  const ProcessResult fewer = run(train_command(
      folder / "fewer", 20, {"--cluster", cluster, "--min-nodes", "1", "--set", "training.sum=float"}));
  CHECK(fewer.code == 2);
  CHECK(fewer.err.find("--min-nodes lets nodes come later") != std::string::npos);
}

TEST_CASE("a guest proves its name where the cluster has certificates") {
  const TemporaryFolder folder;
  const std::string certificates = folder / "certs";
  const std::string more = std::string(kGuests) + "[security]\ncertificates = \"" + certificates + "\"\n";
  const std::string file = folder.write("alpha.toml", cluster_text({{"alpha", kAnyPort}}, more));
  const ProcessResult made = run({TROUPE_PROGRAM, "certs", "--cluster", file, "--out", certificates});
  CAPTURE(made.err);
  REQUIRE(made.code == 0);
  const Node alpha(node_command({"--cluster", file, "--name", "alpha"}));
  const std::string cluster = folder.write("cluster.toml", cluster_text({{"alpha", alpha.address}}, more));
  Run run(folder / "run", train_command(folder / "run", 100'000, {"--cluster", cluster}, 5));
  const Node guest(node_command(
      {"--join", "alpha@" + alpha.address, "--name", "guest-1", "--certificates", certificates}));
  run.wait_for_view("alpha, guest-1");
  run.finish_and_check();
}

TEST_CASE("mistakes in joining are said in one line") {
  const TemporaryFolder folder;
  const Node alpha(folder, "alpha"), beta(folder, "beta", kGuests);
  const auto wrong = [](std::vector<std::string> words, int code, const std::string& message) {
    const ProcessResult result = run(node_command(std::move(words)));
    CAPTURE(result.err);
    CHECK(result.code == code);
    CHECK(result.err.find(message) != std::string::npos);
  };
  wrong({"--join", alpha.address}, 2, "the cluster test has no places for guests; set cluster.guests");
  wrong({"--join", beta.address, "--name", "gamma"}, 2,
        "names no node gamma; its nodes are alpha, beta, guest-1");
  wrong({"--join", "127.0.0.1:1"}, 1, "no node answers at 127.0.0.1:1: ");
  wrong({"--join", "somewhere"}, 2, "somewhere");
  wrong({"--join", beta.address, "--certificates", folder / "none"}, 2, "--join NAME@HOST:PORT");
  wrong({}, 2, "--cluster");
}
