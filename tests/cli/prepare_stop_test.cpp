// `troupe prepare` that is told to stop in the middle of it: it ends with 130, and leaves nothing half-made.
#include <chrono>
#include <csignal>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tests/support/process.hpp"

using namespace troupe::test;

namespace {

constexpr std::chrono::seconds kDeadline{120};

std::string pairs_file(const TemporaryFolder& folder, const std::string& name, int pairs) {
  std::string text;
  for (int i = 0; i < pairs; ++i) {
    const std::string number = std::to_string(int64_t{i} * 7919 % 1'000'003);
    text += "the " + number + " houses of this street are green\tles " + number +
            " maisons de cette rue sont vertes\n";
  }
  return folder.write(name, text);
}

// A text that takes seconds to prepare.
std::string long_file(const TemporaryFolder& folder) {
  return pairs_file(folder, "long.tsv", 60'000);
}

std::vector<std::string> prepare_command(const std::string& tsv, const std::string& out,
                                         const std::vector<std::string>& more = {}) {
  std::vector<std::string> command{TROUPE_PROGRAM, "prepare", "--tsv",     tsv, "--out", out,
                                   "--vocabulary", "400",     "--threads", "2"};
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

// Sends it the signal when it has begun to read its text.
void stop(Process& client, int signal) {
  const bool reads = client.wait_for_output("scan", kDeadline);
  CAPTURE(client.err());
  REQUIRE(reads);
  client.signal(signal);
  const auto result = client.wait(kDeadline);
  REQUIRE(result);
  CAPTURE(result->err);
  CHECK(result->code == 130);
  CHECK(result->out.empty());
  CHECK(result->err.find("stopping; once more to leave at once\n") != std::string::npos);
  CHECK(result->err.ends_with("troupe: stopped before the dataset was whole\n"));
}

bool is_there(const std::string& path) {
  return run({"test", "-e", path}).code == 0;
}

std::string all_files(const std::string& folder) {
  return run({"sh", "-c", "cd '" + folder + "' && find . -type f | sort | xargs sha256sum"}).out;
}

}  // namespace

TEST_CASE("a preparation that is told to stop leaves no folder behind") {
  const TemporaryFolder folder;
  const std::string tsv = long_file(folder), out = folder / "out";
  for (const int signal : {SIGINT, SIGTERM}) {
    CAPTURE(signal);
    Process client(prepare_command(tsv, out));
    stop(client, signal);
    CHECK_FALSE(is_there(out));
  }
}

TEST_CASE("a preparation that is told to stop leaves the dataset that was to be replaced") {
  const TemporaryFolder folder;
  const std::string out = folder / "out";
  const ProcessResult made = run(prepare_command(pairs_file(folder, "short.tsv", 400), out), {}, kDeadline);
  CAPTURE(made.err);
  REQUIRE(made.code == 0);
  const std::string before = all_files(out);
  CHECK(before.find("manifest.json") != std::string::npos);
  Process client(prepare_command(long_file(folder), out, {"--overwrite"}));
  stop(client, SIGINT);
  CHECK(all_files(out) == before);
  CHECK_FALSE(is_there(out + "/.work"));
}

TEST_CASE("a preparation on local nodes that is told to stop ends them, and removes their folder") {
  const TemporaryFolder folder;
  const std::string out = folder / "out", temporary = folder / "tmp";
  REQUIRE(run({"mkdir", temporary}).code == 0);
  std::vector<std::string> command = prepare_command(long_file(folder), out, {"--nodes", "2"});
  command.insert(command.begin(), {"env", "TMPDIR=" + temporary});
  Process client(command);
  REQUIRE(client.wait_for_output("scan", kDeadline));
  std::string of_nodes = run({"find", temporary, "-name", "troupe-prepare-*"}).out;
  REQUIRE(of_nodes.ends_with('\n'));
  of_nodes.pop_back();
  // Others can neither put a cluster file there before us nor change ours.
  CHECK(of_nodes != temporary + "/troupe-prepare-" + std::to_string(client.id()));
  CHECK(run({"stat", "-c", "%a", of_nodes}).out == "700\n");
  std::vector<pid_t> nodes;
  {
    std::ifstream in(of_nodes + "/cluster.json");
    REQUIRE(in.good());
    const auto cluster = nlohmann::json::parse(in);
    for (const auto& node : cluster["nodes"]) nodes.push_back(node["pid"].get<pid_t>());
  }
  CHECK(nodes.size() == 2);
  stop(client, SIGTERM);
  for (const pid_t node : nodes) CHECK(wait_for_end(node, kDeadline));
  CHECK_FALSE(is_there(of_nodes));
  CHECK_FALSE(is_there(out));
}
