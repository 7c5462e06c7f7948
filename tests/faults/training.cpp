#include "tests/faults/training.hpp"

#include <algorithm>
#include <csignal>
#include <fstream>
#include <iterator>
#include <map>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tests/faults/folder_watch.hpp"

namespace troupe::test {

std::vector<std::string> train_command(const std::string& out, int steps, std::vector<std::string> more,
                                       int report) {
  std::vector<std::string> command = {TROUPE_PROGRAM, "train",
                                      "--job",        std::string(TROUPE_JOBS) + "/tiny.toml",
                                      "--out",        out,
                                      "--steps",      std::to_string(steps),
                                      "--set",        "report.every=" + std::to_string(report)};
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

std::string digest_of(const ProcessResult& result) {
  const std::string word = "weights ";
  const size_t at = result.out.rfind(word);
  return at == std::string::npos ? "" : result.out.substr(at + word.size(), 64);
}

int last_step(const ProcessResult& result) {
  const size_t at = result.out.rfind("\nstep ");
  REQUIRE(at != std::string::npos);
  return std::stoi(result.out.substr(at + 6));
}

std::string train_to_end(const std::string& out, int steps, std::vector<std::string> more) {
  const ProcessResult result = run(train_command(out, steps, std::move(more)), {}, kWholeRunDeadline);
  CAPTURE(result.out);
  CAPTURE(result.err);
  REQUIRE(result.code == 0);
  const std::string digest = digest_of(result);
  REQUIRE(digest.size() == 64);
  return digest;
}

std::string expected_digest(int steps) {
  static std::map<int, std::string> known;  // of this test program only: a run costs a second
  std::string& digest = known[steps];
  if (digest.empty()) {
    const TemporaryFolder folder;
    digest = train_to_end(folder / "run", steps, {"--nodes", "1", "--threads", "1"});
  }
  return digest;
}

Run::Run(std::string out, std::vector<std::string> command, const std::string& first)
    : out_(std::move(out)), client_(std::move(command)) {
  wait_for(first);
}

void Run::wait_for(const std::string& text) {
  CAPTURE(text);
  const bool came = client_.wait_for_output(text, kRunDeadline);
  CAPTURE(client_.err());
  REQUIRE(came);
}

void Run::wait_for_view(const std::string& nodes) {
  CAPTURE(nodes);
  const std::string end = " on: " + nodes + "\n";
  const bool came = client_.wait_for_output(end, kRunDeadline, seen_);
  CAPTURE(client_.err());
  REQUIRE(came);
  seen_ = client_.err().find(end, seen_) + end.size();
}

ProcessResult Run::wait() {
  const auto result = client_.wait(kRunDeadline);
  CAPTURE(client_.out());
  CAPTURE(client_.err());
  REQUIRE(result);
  return *result;
}

ProcessResult Run::stop() {
  client_.signal(SIGINT);
  const ProcessResult result = wait();
  CAPTURE(result.out);
  CAPTURE(result.err);
  REQUIRE(result.code == 130);
  const ProcessResult proved = run({TROUPE_PROGRAM, "ledger", "verify", out_});
  CAPTURE(proved.err);
  CHECK(proved.code == 0);
  return result;
}

void Run::finish_and_check() {
  const ProcessResult result = stop();
  CHECK(digest_of(result) == expected_digest(last_step(result)));
}

pid_t process_of(const std::string& out, const std::string& node) {
  std::ifstream in(out + "/cluster.json");
  const auto cluster = nlohmann::json::parse(in);
  for (const auto& entry : cluster["nodes"])
    if (entry["name"] == node) return entry["pid"].get<pid_t>();
  FAIL("no process of ", node);
  return -1;
}

bool process_runs(pid_t process) {
  std::ifstream in("/proc/" + std::to_string(process) + "/stat");
  std::string id, name, state;
  return bool(in >> id >> name >> state) && state != "Z";
}

bool wait_for_log(const std::string& out, const std::string& node, const std::string& text,
                  std::chrono::seconds deadline) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  const FolderWatch logs(out + "/logs");
  for (;;) {
    std::ifstream in(out + "/logs/" + node + ".log");
    const std::string log{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (log.find(text) != std::string::npos) return true;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    logs.wait_for_change(left);
  }
}

bool all_nodes_end(const std::string& out, std::chrono::seconds deadline) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  std::ifstream in(out + "/cluster.json");
  const auto nodes = nlohmann::json::parse(in)["nodes"];
  for (const auto& entry : nodes)
    if (!wait_for_end(entry["pid"].get<pid_t>(),
                      std::chrono::ceil<std::chrono::milliseconds>(
                          std::max(end - std::chrono::steady_clock::now(), std::chrono::nanoseconds(0)))))
      return false;
  return true;
}

}  // namespace troupe::test
