// Stopping and going on.
#include <csignal>
#include <filesystem>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "tests/support/silent_port.hpp"
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

TEST_CASE("who waits for nodes that do not answer can be stopped, and says so") {
  for (const int signal : {SIGINT, SIGTERM}) {
    const SilentPort port;
    const TemporaryFolder folder;
    const std::string cluster = folder.write(
        "cluster.toml", fmt::format("[cluster]\npatience_ms = 60000\n[[nodes]]\nname = \"silent\"\n"
                                    "address = \"{}\"\nbulk_address = \"127.0.0.1:0\"\n",
                                    port.address()));
    Process client(train_command(folder / "run", kSteps, {"--cluster", cluster}));
    CHECK(port.wait_for_dial(kRunDeadline));
    client.signal(signal);
    const auto result = client.wait(kRunDeadline);
    REQUIRE(result);
    CAPTURE(result->err);
    CHECK(result->code == 130);
    CHECK(result->err.find("stopped before the nodes were reached") != std::string::npos);
  }
}

TEST_CASE("a run that is done stays done when it is resumed") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  const std::string digest = train_to_end(out, 20, {"--threads", "1"});
  CHECK(train_to_end(out, 20, {"--nodes", "2", "--threads", "1", "--resume"}) == digest);
  CHECK(train_to_end(out, 30, {"--threads", "1", "--resume"}) == expected_digest(30));
}

TEST_CASE("a job whose schedule ends is stopped where --stop-at says, and goes on to the same weights") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  const auto cosine = [](std::vector<std::string> more) {
    more.insert(more.end(), {"--set", "schedule.kind=cosine"});
    return more;
  };
  const std::string digest = train_to_end(folder / "whole", 60, cosine({"--nodes", "1", "--threads", "1"}));
  CHECK(digest != expected_digest(60));
  const std::string first =
      train_to_end(out, 60, cosine({"--nodes", "2", "--threads", "1", "--stop-at", "20"}));
  CHECK(first ==
        train_to_end(folder / "short", 20, cosine({"--threads", "1", "--set", "schedule.total_steps=60"})));
  train_to_end(out, 60, cosine({"--nodes", "1", "--threads", "2", "--stop-at", "30", "--resume"}));

  const ProcessResult longer = run(train_command(out, 90, cosine({"--resume"})), {}, kRunDeadline);
  CHECK(longer.code == 2);
  CHECK(longer.err.find("schedule.total_steps = 90 here, 60 there") != std::string::npos);
  CHECK(train_to_end(out, 60, cosine({"--nodes", "2", "--threads", "1", "--resume"})) == digest);
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
