// Nodes on hosts of their own, with a network between them that is pulled, parted, slow and healed: the job
// goes on, and ends with the bits of a run that nobody disturbed.
#include <algorithm>
#include <csignal>
#include <exception>
#include <fstream>
#include <iterator>
#include <memory>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "folder_watch.hpp"
#include "hosts.hpp"
#include "nodes.hpp"
#include "training.hpp"

using namespace troupe::test;

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPatienceMs = 2000;
const std::string kInsecure = "[security]\ninsecure = true\n";

// Once for all cases; false, and the test says so, when there can be no such network.
bool have_hosts() {
  static const std::string missing = Hosts::what_is_missing();
  if (!missing.empty()) MESSAGE("not tested, no hosts in small can be made: ", missing);
  return missing.empty();
}

// A node on each of `left` (switch 0) and `right` (switch 1); clients run on a host beside the left ones.
class Company {
 public:
  Company(const std::vector<std::string>& left, const std::vector<std::string>& right,
          int patience_ms = kPatienceMs)
      : more_("transport = \"tcp\"\npatience_ms = " + std::to_string(patience_ms) + "\n") {
    for (const auto& [names, side] : {std::pair(left, 0), std::pair(right, 1)})
      for (const std::string& name : names) {
        hosts.add(name, side);
        addresses_.push_back({name, hosts.address(name) + ":7000"});
      }
    hosts.add(kClient);
  }
  // What nobody expected is explained by the nodes.
  ~Company() {
    if (std::uncaught_exceptions() == 0) return;
    for (const auto& node : nodes_) {
      node->process.signal(SIGKILL);
      const auto said = node->process.wait(kRunDeadline);
      const std::string log = said ? said->out + said->err : "";
      MESSAGE(log);
    }
  }
  // `security` is the table of that name.
  void start(const std::string& security = kInsecure) {
    write(security);
    for (const auto& [name, address] : addresses_) start_node(name);
  }
  std::string write(const std::string& security) const {
    return folder.write("cluster.toml", cluster_text(addresses_, more_ + security));
  }
  std::vector<std::string> train(int steps) const {
    return hosts.on(kClient, train_command(out(), steps, {"--cluster", folder / "cluster.toml"}, 5));
  }
  std::string out() const { return folder / "run"; }
  // Until the last step that `node` has written into its ledger was computed by `nodes`, and no others.
  void wait_for_steps_of(const std::string& node, const std::vector<std::string>& nodes) const {
    const FolderWatch ledgers(out() + "/ledger");
    const auto deadline = Clock::now() + kRunDeadline;
    while (last_computed_by(node) != nodes) {
      REQUIRE(Clock::now() < deadline);
      ledgers.wait_for_change(std::chrono::seconds(1));
    }
  }

  const TemporaryFolder folder;
  Hosts hosts;

 private:
  static constexpr char kClient[] = "client";
  static constexpr std::streamoff kTailBytes = 4096;  // more than one line of a ledger

  void start_node(const std::string& name) {
    nodes_.push_back(std::make_unique<Node>(
        hosts.on(name, node_command({"--cluster", folder / "cluster.toml", "--name", name}))));
  }
  std::vector<std::string> last_computed_by(const std::string& node) const {
    std::ifstream in(out() + "/ledger/" + node + ".jsonl", std::ios::binary | std::ios::ate);
    in.seekg(std::max(std::streamoff(0), std::streamoff(in.tellg()) - kTailBytes));
    const std::string tail{std::istreambuf_iterator<char>(in), {}};
    const size_t end = tail.rfind('\n');  // what comes after it is being written
    if (end == 0 || end == std::string::npos) return {};
    const size_t begin = tail.rfind('\n', end - 1) + 1;  // the first line begins at 0, too
    const auto record = nlohmann::json::parse(tail.substr(begin, end - begin));
    std::vector<std::string> names;
    for (const auto& [name, slots] : record["by"].items()) names.push_back(name);
    return names;
  }

  const std::string more_;
  std::vector<NodeAddress> addresses_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace

TEST_CASE("three hosts with certificates train to the bits of one process") {
  if (!have_hosts()) return;
  Company company({"alpha", "beta"}, {"gamma"});
  const std::string certificates = company.folder / "certs";
  const std::string cluster = company.write("");
  const ProcessResult made =
      run({TROUPE_PROGRAM, "certs", "--cluster", cluster, "--out", certificates}, {}, kRunDeadline);
  CAPTURE(made.err);
  REQUIRE(made.code == 0);
  company.start("[security]\ncertificates = \"" + certificates + "\"\n");
  const ProcessResult result = run(company.train(100), {}, kRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 0);
  CHECK(digest_of(result) == expected_digest(100));
}

TEST_CASE("a host whose cable is pulled is left out, and comes back when it is plugged in again") {
  if (!have_hosts()) return;
  struct Case {
    std::string host, others;
  };
  for (const Case& c : {Case{"gamma", "alpha, beta"}, Case{"alpha", "beta, gamma"}}) {
    CAPTURE(c.host);
    Company company({"alpha", "beta", "gamma"}, {});
    company.start();
    Run run(company.out(), company.train(100'000));
    company.hosts.unplug(c.host);
    const auto pulled = Clock::now();
    run.wait_for_view(c.others);
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - pulled);
    MESSAGE("the others go on ", took.count(), " ms after the cable was pulled; the patience is ",
            kPatienceMs);
    CHECK(took.count() < 5 * kPatienceMs);
    company.wait_for_steps_of(c.host, {c.host});  // nobody tells it that it is alone
    company.hosts.plug(c.host);
    run.wait_for_view("alpha, beta, gamma");
    run.finish_and_check();
  }
}

TEST_CASE("both halves of a parted network go on, and meet again in the same bits") {
  if (!have_hosts()) return;
  Company company({"alpha", "beta"}, {"gamma", "delta"});
  company.start();
  Run run(company.out(), company.train(100'000));
  company.hosts.part();
  run.wait_for_view("alpha, beta");
  company.wait_for_steps_of("gamma", {"delta", "gamma"});
  company.wait_for_steps_of("alpha", {"alpha", "beta"});
  company.hosts.join();
  run.wait_for_view("alpha, beta, gamma, delta");
  run.finish_and_check();
}

TEST_CASE("a host whose wire needs longer for a step than the patience is waited for") {
  if (!have_hosts()) return;
  constexpr int kSteps = 3, kWaitedMs = 4000;
  const std::vector<std::string> larger = {"--set", "model.width=96", "--set", "model.inner=192"};
  Company company({"alpha", "beta", "gamma"}, {}, kWaitedMs);
  company.hosts.slow("gamma", 1200);  // of 700 kB a step
  company.start();
  std::vector<std::string> command = company.train(kSteps);
  command.insert(command.end(), larger.begin(), larger.end());
  const auto began = Clock::now();
  const ProcessResult result = run(command, {}, kRunDeadline);
  CAPTURE(result.err);
  REQUIRE(result.code == 0);  // what fails here is explained by the nodes
  REQUIRE(Clock::now() - began > std::chrono::milliseconds(kSteps * kWaitedMs));
  REQUIRE(result.err.find("lost node") == std::string::npos);
  REQUIRE(result.err.find("from step") == std::string::npos);  // no view but the first
  std::vector<std::string> alone = {"--nodes", "1", "--threads", "1"};
  alone.insert(alone.end(), larger.begin(), larger.end());
  CHECK(digest_of(result) == train_to_end(company.folder / "alone", kSteps, alone));
}
