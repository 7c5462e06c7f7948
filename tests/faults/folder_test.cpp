// The folder of a run: who else is at work there, from what a run goes on, and what could not be written.
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tests/faults/nodes.hpp"
#include "tests/faults/training.hpp"

using namespace troupe::test;
namespace fs = std::filesystem;

namespace {

bool says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// On one local node with one thread, to its end.
ProcessResult train_alone(const std::string& out, int steps, std::vector<std::string> more, int report = 20) {
  more.insert(more.begin(), {"--threads", "1"});
  return run(train_command(out, steps, std::move(more), report), {}, kRunDeadline);
}

void check_refused(const std::string& out, const ProcessResult& result) {
  CAPTURE(result.err);
  CHECK(result.code == 2);
  CHECK(says(result.err, "another troupe is at work in " + out));
}

std::string checkpoint(const std::string& out, const std::string& step) {
  return out + "/checkpoints/checkpoint-00000000" + step + "-node0.troupe";
}

// Checkpoints at steps 8 and 10.
void save_two(const std::string& out) {
  train_to_end(out, 8, {"--threads", "1"});
  train_to_end(out, 10, {"--threads", "1", "--resume"});
}

}  // namespace

TEST_CASE(
    "a second job in a folder is refused while the nodes of another run there, with a client or without") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  const std::vector<std::string> two = {"--nodes", "2", "--threads", "1", "--resume"};
  {
    Run first(out, train_command(out, 100'000, two, 5));
    const std::string cluster = read_file(out + "/cluster.json");
    check_refused(out, train_alone(out, 100'000, {}));
    CHECK(read_file(out + "/cluster.json") == cluster);
    first.stop();
  }
  Process second(train_command(out, 100'000, two, 5));
  REQUIRE(second.wait_for_output("\nstep ", kRunDeadline));
  second.signal(SIGKILL);
  const auto killed = second.wait(kRunDeadline);
  REQUIRE(killed);
  check_refused(out, train_alone(out, 100'000, {"--resume"}));
  for (const char* node : {"node0", "node1"}) kill(process_of(out, node), SIGTERM);
  CHECK(all_nodes_end(out, kRunDeadline));
}

TEST_CASE("a node refuses a job in a folder where another of its name has one, and says who it is") {
  const TemporaryFolder folder, elsewhere;
  const std::string out = folder / "run";
  const auto train = [&](const std::string& cluster) {
    return train_command(out, 100'000, {"--cluster", cluster}, 5);
  };
  const Node alpha(folder, "alpha"), beta(folder, "beta");
  Run first(out, train(cluster_file(folder, alpha, beta)));
  const Node other_alpha(elsewhere, "alpha"), other_beta(elsewhere, "beta");
  const ProcessResult second = run(train(cluster_file(elsewhere, other_alpha, other_beta)), {}, kRunDeadline);
  check_refused(out, second);
  CHECK(says(second.err, "troupe: node "));
  first.stop();
}

TEST_CASE("who goes on is told from which step, and why newer checkpoints are passed over") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  save_two(out);
  fs::resize_file(checkpoint(out, "10"), 5000);
  const ProcessResult on =
      run(train_command(out, 12, {"--nodes", "2", "--threads", "1", "--resume"}), {}, kRunDeadline);
  CAPTURE(on.err);
  REQUIRE(on.code == 0);
  CHECK(digest_of(on) == expected_digest(12));
  CHECK(says(on.err, "goes on from step 8\n"));
  const std::string passed =
      "passes over newer checkpoints: checkpoint " + checkpoint(out, "10") + " is broken";
  CHECK(says(on.err, passed));
  CHECK(on.err.find(passed) == on.err.rfind(passed));
}

TEST_CASE("a run does not go on from before a checkpoint that a newer troupe has written") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  save_two(out);
  {
    std::fstream newest(checkpoint(out, "10"), std::ios::in | std::ios::out | std::ios::binary);
    newest.seekp(8);  // the number of its format
    newest.put(99);
  }
  const std::string before = read_file(checkpoint(out, "10"));
  const ProcessResult on = train_alone(out, 10, {"--resume"});
  CAPTURE(on.err);
  CHECK(on.code == 1);
  CHECK(says(on.err, checkpoint(out, "10") + " has format 99, written by a newer troupe"));
  CHECK(says(on.err, "move that file away to go on from the older checkpoint-0000000008-node0.troupe"));
  CHECK(read_file(checkpoint(out, "10")) == before);
  fs::remove(checkpoint(out, "10"));
  CHECK(digest_of(train_alone(out, 10, {"--resume"})) == expected_digest(10));
}

TEST_CASE(
    "a checkpoint that cannot be written is told to the client, and in train.log, and the job goes on") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  fs::create_directories(checkpoint(out, "04") + ".partial");  // what would be a file
  const ProcessResult result = train_alone(out, 6, {"--set", "checkpoint.every=4"});
  CAPTURE(result.err);
  CHECK(result.code == 0);
  CHECK(says(result.err, "node node0: no checkpoint at step 4: "));
  CHECK(says(read_file(out + "/train.log"), "no checkpoint at step 4: "));
}

TEST_CASE("a ledger that cannot be written is told to the client, and at the end which steps it lacks") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  fs::create_directory(out);
  folder.write("run/ledger", "");  // what would be a folder
  const ProcessResult result = train_alone(out, 6, {});
  CAPTURE(result.err);
  CHECK(result.code == 0);
  CHECK(says(result.err, "node node0: the ledger waits: "));
  CHECK(says(result.err, "node node0: the ledger lacks its last 6 steps, from step 0 on: "));
}

TEST_CASE("a run that ends before a report is due reports its last step") {
  const TemporaryFolder folder;
  const ProcessResult result = train_alone(folder / "run", 60, {"--stop-at", "7", "--json"}, 50);
  CAPTURE(result.out);
  REQUIRE(result.code == 0);
  const size_t end = result.out.find('\n');
  REQUIRE(end != std::string::npos);
  CHECK(nlohmann::json::parse(result.out.substr(0, end)).at("step") == 7);
  const auto last = nlohmann::json::parse(result.out.substr(end + 1));
  CHECK(last.at("loss") > 0);
  CHECK(last.at("tokens_per_s") > 0);
}
