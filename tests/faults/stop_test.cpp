// Stopping and going on.
#include <csignal>
#include <filesystem>

#include <doctest/doctest.h>

#include "training.hpp"

using namespace troupe::test;

namespace {

constexpr int kSteps = 3000;  // far longer than a test waits for its signal

// Starts a run and interrupts it once it has reported; returns how it ended.
ProcessResult interrupt(const std::string& out, std::vector<std::string> more, int signals) {
  Process client(train_command(out, kSteps, std::move(more), 5));
  REQUIRE(client.wait_for_output("step ", kRunDeadline));
  client.signal(SIGINT);
  if (signals > 1) {
    REQUIRE(client.wait_for_output("stopping after this step", kRunDeadline));
    client.signal(SIGINT);
  }
  const auto result = client.wait(kRunDeadline);
  REQUIRE(result);
  return *result;
}

int step_of(const ProcessResult& result) {
  const size_t at = result.out.rfind("\nstep ");
  return at == std::string::npos ? -1 : std::stoi(result.out.substr(at + 6));
}

}  // namespace

TEST_CASE(
    "Ctrl-C ends a run with a checkpoint, and resuming twice gives the bits of one that never stopped") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  const ProcessResult first = interrupt(out, {"--nodes", "2", "--threads", "1"}, 1);
  CAPTURE(first.err);
  CHECK(first.code == 130);
  const int stopped_at = step_of(first);
  CHECK(stopped_at > 0);
  CHECK(stopped_at < kSteps);
  CHECK(all_nodes_end(out, kRunDeadline));

  const ProcessResult second = interrupt(out, {"--nodes", "1", "--threads", "2", "--resume"}, 1);
  CHECK(second.code == 130);
  const int stopped_again_at = step_of(second);
  CHECK(stopped_again_at > stopped_at);

  const int end = stopped_again_at + 10;
  const std::string digest = train_to_end(out, end, {"--nodes", "3", "--threads", "1", "--resume"});
  CHECK(digest == expected_digest(end));
  const ProcessResult asked = run({TROUPE_PROGRAM, "digest", out});
  CHECK(asked.out == digest + "\n");

  const ProcessResult proved = run({TROUPE_PROGRAM, "ledger", "verify", out});
  CAPTURE(proved.err);
  CHECK(proved.code == 0);
  CHECK(proved.out.find(std::to_string(end) + " steps, every slot counted once") != std::string::npos);
}

TEST_CASE("a second Ctrl-C leaves at once") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  const ProcessResult result =
      interrupt(out, {"--nodes", "2", "--threads", "1", "--set", "training.slots=512"}, 2);
  CAPTURE(result.err);
  CHECK(result.code == 130);
  CHECK(all_nodes_end(out, kRunDeadline));
}

TEST_CASE("a run that is done stays done when it is resumed") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  const std::string digest = train_to_end(out, 20, {"--threads", "1"});
  CHECK(train_to_end(out, 20, {"--nodes", "2", "--threads", "1", "--resume"}) == digest);
  CHECK(train_to_end(out, 30, {"--threads", "1", "--resume"}) == expected_digest(30));
}

TEST_CASE("a killed client leaves the nodes to finish the job and end") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  {
    Process client(train_command(out, 150, {"--nodes", "2", "--threads", "1"}, 5));
    REQUIRE(client.wait_for_output("step ", kRunDeadline));
    client.signal(SIGKILL);
    client.wait(kRunDeadline);
  }
  CHECK(all_nodes_end(out, kRunDeadline));
  const ProcessResult asked = run({TROUPE_PROGRAM, "digest", out});
  CHECK(asked.out == expected_digest(150) + "\n");
}

TEST_CASE("resuming with another job is refused, and the setting that differs is named") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  train_to_end(out, 10, {"--threads", "1"});
  const ProcessResult other =
      run(train_command(out, 20, {"--resume", "--set", "optimizer.beta1=0.8"}), {}, kRunDeadline);
  CHECK(other.code == 2);
  CHECK(other.err.find("optimizer.beta1 = 0.8 here, 0.9 there") != std::string::npos);
  const ProcessResult fresh = run(train_command(out, 20), {}, kRunDeadline);
  CHECK(fresh.code == 2);
  CHECK(fresh.err.find("--resume") != std::string::npos);
}
