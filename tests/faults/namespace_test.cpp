// Nodes on hosts of their own, with a network between them that is pulled, parted, slow and healed: the job
// goes on, and ends with the bits of a run that nobody disturbed.
#include <chrono>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "tests/faults/company.hpp"
#include "tests/faults/training.hpp"

using namespace troupe::test;

namespace {

using Clock = std::chrono::steady_clock;

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
    // However busy the machine is; TCP by itself would try for many minutes.
    CHECK(took.count() < 30'000);
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
  constexpr int kSteps = 3, kWaitedMs = 8000;
  const std::vector<std::string> larger = {"--set", "model.width=96", "--set", "model.inner=192"};
  Company company({"alpha", "beta", "gamma"}, {}, kWaitedMs);
  company.hosts.slow("gamma", 600);  // of 700 kB a step
  company.start();
  std::vector<std::string> command = company.train(kSteps);
  command.insert(command.end(), larger.begin(), larger.end());
  const auto began = Clock::now();
  const ProcessResult result = run(command, {}, kWholeRunDeadline);
  CAPTURE(result.err);
  REQUIRE(result.code == 0);  // what fails here is explained by the nodes
  REQUIRE(Clock::now() - began > std::chrono::milliseconds(kSteps * kWaitedMs));
  REQUIRE(result.err.find("lost node") == std::string::npos);
  REQUIRE(result.err.find("from step") == std::string::npos);  // no view but the first
  std::vector<std::string> alone = {"--nodes", "1", "--threads", "1"};
  alone.insert(alone.end(), larger.begin(), larger.end());
  CHECK(digest_of(result) == train_to_end(company.folder / "alone", kSteps, alone));
}
