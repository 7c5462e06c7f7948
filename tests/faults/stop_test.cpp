// Stopping and going on.
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "comm/fault_proxy.hpp"
#include "tests/faults/nodes.hpp"
#include "tests/faults/training.hpp"
#include "tests/support/silent_port.hpp"

using namespace troupe::test;

namespace {

constexpr int kSteps = 3000;  // far longer than a test waits for its signal

// Starts a run and sends its client the signal, `times` once or twice, when it has reported; returns how it
// ended.
ProcessResult interrupt(const std::string& out, std::vector<std::string> more, int signal, int times) {
  Process client(train_command(out, kSteps, std::move(more), 5));
  REQUIRE(client.wait_for_output("step ", kRunDeadline));
  client.signal(signal);
  if (times > 1) {
    REQUIRE(client.wait_for_output("stopping after this step", kRunDeadline));
    client.signal(signal);
  }
  const auto result = client.wait(kRunDeadline);
  REQUIRE(result);
  return *result;
}

int step_of(const ProcessResult& result) {
  const size_t at = result.out.rfind("\nstep ");
  return at == std::string::npos ? -1 : std::stoi(result.out.substr(at + 6));
}

// Starts a run and kills its client once it has reported.
void kill_client(std::vector<std::string> command) {
  Process client(std::move(command));
  REQUIRE(client.wait_for_output("step ", kRunDeadline));
  client.signal(SIGKILL);
  client.wait(kRunDeadline);
}

// That of the newest checkpoint in the folder of a run; -1: there is none.
int checkpointed_step(const std::string& out) {
  constexpr std::string_view kBegin = "checkpoint-";
  int step = -1;
  for (const auto& entry : std::filesystem::directory_iterator(out + "/checkpoints"))
    if (const std::string name = entry.path().filename(); name.starts_with(kBegin))
      step = std::max(step, std::stoi(name.substr(kBegin.size())));
  return step;
}

void check_stops_too(Node& back) {
  back.process.signal(SIGCONT);
  CHECK(back.process.wait_for_output("the job has ended with code 130", kRunDeadline));
  CHECK(back.process.wait_for_output("was stopped while " + back.name + " was away", kRunDeadline));
}

}  // namespace

TEST_CASE(
    "Ctrl-C, or SIGTERM, ends a run with a checkpoint, and resuming gives the bits of one that never "
    "stopped") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  const ProcessResult first = interrupt(out, {"--nodes", "2", "--threads", "1"}, SIGINT, 1);
  CAPTURE(first.err);
  CHECK(first.code == 130);
  const int stopped_at = step_of(first);
  CHECK(stopped_at > 0);
  CHECK(stopped_at < kSteps);
  CHECK(all_nodes_end(out, kRunDeadline));

  const ProcessResult second = interrupt(out, {"--nodes", "1", "--threads", "2", "--resume"}, SIGTERM, 1);
  CAPTURE(second.err);
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

TEST_CASE("a second Ctrl-C, or SIGTERM, leaves at once") {
  for (const int signal : {SIGINT, SIGTERM}) {
    CAPTURE(signal);
    const TemporaryFolder folder;
    const std::string out = folder / "run";
    const ProcessResult result =
        interrupt(out, {"--nodes", "2", "--threads", "1", "--set", "training.slots=512"}, signal, 2);
    CAPTURE(result.err);
    CHECK(result.code == 130);
    CHECK(all_nodes_end(out, kRunDeadline));
  }
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

TEST_CASE("Ctrl-C takes back an order that waits for the end of the last job") {
  const TemporaryFolder folder;
  const std::string data = folder / "data";
  REQUIRE(mkdir(data.c_str(), 0700) == 0);
  // Who opens this to read waits for a writer, who never comes: a part of the first job does not end.
  REQUIRE(mkfifo((data + "/manifest.json").c_str(), 0600) == 0);
  Node alpha(node_command(
      {"--cluster", folder.write("alpha.toml", cluster_text({{"alpha", kAnyPort}})), "--name", "alpha"}));
  const std::string cluster = folder.write("cluster.toml", cluster_text({{"alpha", alpha.address}}));
  const auto interrupt_at = [&](const std::string& said, std::vector<std::string> command) {
    Process client(std::move(command));
    REQUIRE(alpha.process.wait_for_output(said, kRunDeadline));
    client.signal(SIGINT);
    const auto end = client.wait(kRunDeadline);
    REQUIRE(end);
    CAPTURE(end->err);
    CHECK(end->code == 130);
  };
  interrupt_at("a job of 20 steps",
               train_command(folder / "first", 20,
                             {"--cluster", cluster, "--data", data, "--set", "data.source=folder"}));
  interrupt_at("waits until the last one has ended",
               train_command(folder / "second", 30, {"--cluster", cluster}));
  CHECK(alpha.process.wait_for_output("stopped before the job began", kRunDeadline));
}

TEST_CASE("a job that was stopped while a node was away does not begin again when that comes back") {
  const TemporaryFolder folder;
  constexpr char kPatience[] = "patience_ms = 1000\n";
  Node alpha(folder, "alpha", kPatience), beta(folder, "beta", kPatience);
  const std::string cluster =
      folder.write("cluster.toml", cluster_text(alpha.address, beta.address, kPatience));
  Process client(train_command(folder / "run", 100'000, {"--cluster", cluster}, 5));
  REQUIRE(client.wait_for_output("step ", kRunDeadline));
  beta.process.signal(SIGSTOP);
  REQUIRE(client.wait_for_output(" on: alpha\n", kRunDeadline));
  client.signal(SIGINT);
  const auto stopped = client.wait(kRunDeadline);
  REQUIRE(stopped);
  CHECK(stopped->code == 130);
  check_stops_too(beta);
  CHECK(train_to_end(folder / "other", 20, {"--cluster", cluster}) == expected_digest(20));
}

TEST_CASE("nor does a job that the node had joined long after it began; resumed, it goes on with both") {
  constexpr char kPatience[] = "patience_ms = 1000\n";
  const TemporaryFolder folder;
  troupe::comm::FaultProxy way(troupe::comm::FaultProxyOptions{});  // to beta, once it is there
  const Node alpha(
      node_command({"--cluster", folder.write("alpha.toml", cluster_text(kAnyPort, way.address(), kPatience)),
                    "--name", "alpha"}));
  const std::string cluster =
      folder.write("cluster.toml", cluster_text(alpha.address, way.address(), kPatience));
  const auto command = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--cluster", cluster, "--min-nodes", "1"});
    return train_command(folder / "run", 100'000, std::move(more), 5);
  };
  Run first(folder / "run", command({}));
  first.wait_for("step 200/");  // its clock has gone on by then
  Node beta(folder, "beta", kPatience);
  way.set_target(beta.address);
  first.wait_for_view("alpha, beta");
  beta.process.signal(SIGSTOP);
  first.wait_for_view("alpha");
  first.stop();
  check_stops_too(beta);

  Run(folder / "run", command({"--resume"}), "\nstep ").finish_and_check();
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
  kill_client(train_command(out, 150, {"--nodes", "2", "--threads", "1"}, 5));
  CHECK(all_nodes_end(out, kRunDeadline));
  const ProcessResult asked = run({TROUPE_PROGRAM, "digest", out});
  CHECK(asked.out == expected_digest(150) + "\n");
}

TEST_CASE("nodes that a killed client has left stop with a checkpoint when all are sent SIGTERM") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  kill_client(
      train_command(out, kSteps, {"--nodes", "2", "--threads", "1", "--set", "checkpoint.every=0"}, 5));
  for (const char* node : {"node0", "node1"}) kill(process_of(out, node), SIGTERM);
  CHECK(all_nodes_end(out, kRunDeadline));
  const int stopped_at = checkpointed_step(out);
  REQUIRE(stopped_at > 0);
  CHECK(stopped_at < kSteps);
  const ProcessResult asked = run({TROUPE_PROGRAM, "digest", out});
  CHECK(asked.out == expected_digest(stopped_at) + "\n");
  const int end = stopped_at + 10;
  CHECK(train_to_end(out, end, {"--nodes", "1", "--threads", "1", "--resume"}) == expected_digest(end));
}

TEST_CASE("a job is resumed with other report and checkpoint settings, to the same bits") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  train_to_end(out, 10, {"--threads", "1"});
  const std::vector<std::string> others = {"--threads",          "1",     "--resume",           "--set",
                                           "checkpoint.every=3", "--set", "checkpoint.keep=100"};
  const ProcessResult resumed = run(train_command(out, 20, others, 7), {}, kRunDeadline);
  CAPTURE(resumed.err);
  REQUIRE(resumed.code == 0);
  CHECK(digest_of(resumed) == expected_digest(20));
  CHECK(resumed.out.find("step 14/20 ") != std::string::npos);
  const std::string kept = run({"ls", out + "/checkpoints"}).out;
  CHECK(kept.find("checkpoint-0000000012-") != std::string::npos);
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
