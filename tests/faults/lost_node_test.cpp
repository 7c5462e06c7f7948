// With fixed membership a lost node ends the job: soon, by its name, and so that it can go on from its
// checkpoint.
#include <chrono>
#include <csignal>

#include <doctest/doctest.h>

#include "training.hpp"

using namespace troupe::test;

namespace {

// The promise is 5 s; the rest is for a machine that is busy with other things.
constexpr double kSecondsMax = 20;

struct Loss {
  ProcessResult result;
  double seconds = 0;
};

// Takes `node` away from a run of three with `signal`, once a checkpoint has been written.
Loss lose(const std::string& out, const std::string& node, int signal) {
  Process client(
      train_command(out, 100'000, {"--nodes", "3", "--threads", "1", "--set", "checkpoint.every=10"}, 5));
  REQUIRE(client.wait_for_output("step 30/", kRunDeadline));
  const pid_t victim = process_of(out, node);
  const auto begin = std::chrono::steady_clock::now();
  REQUIRE(kill(victim, signal) == 0);
  const auto result = client.wait(kRunDeadline);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  REQUIRE(result);
  return {*result, took.count()};
}

void check_loss(const std::string& node, int signal) {
  CAPTURE(node);
  CAPTURE(signal);
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  const Loss loss = lose(out, node, signal);
  CAPTURE(loss.result.err);
  CHECK(loss.result.code == 1);
  CHECK(loss.result.err.find("lost node " + node) != std::string::npos);
  CHECK(loss.seconds < kSecondsMax);
  CHECK(all_nodes_end(out, kRunDeadline));

  // It goes on from its checkpoint with the same bits.
  const ProcessResult first =
      run(train_command(out, 60, {"--nodes", "2", "--threads", "1", "--resume"}), {}, kRunDeadline);
  if (first.code == 2) {  // it had come further than that already
    CHECK(first.err.find("ask for at least as many") != std::string::npos);
    return;
  }
  CHECK(digest_of(first) == expected_digest(60));
}

}  // namespace

TEST_CASE("a killed member ends the job by its name, and the job can be resumed") {
  check_loss("node1", SIGKILL);
}
TEST_CASE("a killed leader ends the job by its name, and the job can be resumed") {
  check_loss("node0", SIGKILL);
}
TEST_CASE("a stopped member ends the job by its name, and the job can be resumed") {
  check_loss("node2", SIGSTOP);
}
TEST_CASE("a stopped leader ends the job by its name, and the job can be resumed") {
  check_loss("node0", SIGSTOP);
}

TEST_CASE("SIGTERM to a node is a clean stop of the job") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  Process client(train_command(out, 100'000, {"--nodes", "2", "--threads", "1"}, 5));
  REQUIRE(client.wait_for_output("step 5/", kRunDeadline));
  REQUIRE(kill(process_of(out, "node1"), SIGTERM) == 0);
  const auto result = client.wait(kRunDeadline);
  REQUIRE(result);
  CAPTURE(result->err);
  CHECK(result->code == 130);
  CHECK(digest_of(*result).size() == 64);
}
