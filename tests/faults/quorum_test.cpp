// With a quorum, of a parted network only the half with more than half of all nodes goes on.
#include <cstdint>
#include <string>

#include <doctest/doctest.h>

#include "tests/faults/company.hpp"
#include "tests/faults/training.hpp"

using namespace troupe::test;

TEST_CASE("with a quorum the smaller half of a parted network commits nothing until it meets the larger") {
  if (!have_hosts()) return;
  constexpr int64_t kMeanwhile = 100;  // steps of the larger half; the smaller one alone would be as fast
  Company company({"alpha", "beta"}, {"gamma"}, kPatienceMs, "quorum = true\n");
  company.start();
  Run run(company.out(), company.train(100'000));
  company.hosts.part();
  run.wait_for_view("alpha, beta");
  Process& gamma = company.process("gamma");
  for (const char* lost : {"lost alpha", "lost beta"}) REQUIRE(gamma.wait_for_output(lost, kRunDeadline));
  const int64_t stands_at = company.last_step_of("gamma");
  company.wait_for_step_of("alpha", company.last_step_of("alpha") + kMeanwhile);
  CHECK(company.last_step_of("gamma") < stands_at + kMeanwhile / 10);  // its ledger may have been behind
  company.hosts.join();
  run.wait_for_view("alpha, beta, gamma");
  run.finish_and_check();
  REQUIRE(gamma.wait_for_output("the job has ended with code 130", kRunDeadline));  // all that it has logged
  const std::string log = gamma.out() + gamma.err();
  CHECK(log.find(": gamma from step") == std::string::npos);  // no view of its own
}
