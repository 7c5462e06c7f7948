#include <doctest/doctest.h>

#include "actors/drill/plan.hpp"
#include "kernels/base/error.hpp"
#include "tests/support/process.hpp"

using namespace troupe;
using namespace troupe::drill;

TEST_CASE("a plan is read with its defaults, and its mistakes are named") {
  const test::TemporaryFolder folder;
  const std::set<std::string> nodes = {"node0", "node1"};
  const std::string good = folder.write(
      "good.toml",
      "[[faults]]\nkind = \"stop\"\nnode = \"node1\"\nat_step = 7\n[[faults]]\nnode = \"node0\"\n"
      "[[faults]]\nkind = \"delay\"\nnode = \"node0\"\ndelay_ms = 0.1\n");
  const Plan plan = read_plan(good, nodes);
  REQUIRE(plan.faults.size() == 3);
  CHECK(plan.faults[0].kind == FaultKind::stop);
  CHECK(plan.faults[0].at_step == 7);
  CHECK(plan.faults[1].kind == FaultKind::kill);
  CHECK(plan.faults[1].lasts_ms == 500);
  CHECK(plan.faults[1].delay_ms == 50);
  CHECK(plan.faults[2].delay_ms == 0.1);
  CHECK(plan.needs_proxies());
  const auto refused = [&](const std::string& text, const std::string& says) {
    CHECK_THROWS_WITH_AS(read_plan(folder.write("bad.toml", text), nodes), doctest::Contains(says.c_str()),
                         Error);
  };
  refused("[[faults]]\nkind = \"flood\"\nnode = \"node0\"\n", "kind");
  refused("[[faults]]\nnode = \"node0\"\nlast_ms = 5\n", "last_ms");
  refused("[[faults]]\nnode = \"node9\"\n", "it must be one of node0, node1");
  refused("", "no [[faults]] entry");
}

TEST_CASE("a seed gives the same plan again, another seed another, and every kind comes up") {
  const std::vector<std::string> nodes = {"a", "b", "c"};
  const auto same = [](const Plan& x, const Plan& y) {
    if (x.faults.size() != y.faults.size()) return false;
    for (size_t i = 0; i < x.faults.size(); ++i)
      if (x.faults[i].kind != y.faults[i].kind || x.faults[i].node != y.faults[i].node ||
          x.faults[i].after_ms != y.faults[i].after_ms || x.faults[i].lasts_ms != y.faults[i].lasts_ms)
        return false;
    return true;
  };
  const Plan plan = random_plan(4, 200, all_kinds(), nodes);
  CHECK(same(plan, random_plan(4, 200, all_kinds(), nodes)));
  CHECK_FALSE(same(plan, random_plan(5, 200, all_kinds(), nodes)));
  CHECK(plan.needs_proxies());
  std::set<FaultKind> kinds;
  std::set<std::string> hit;
  for (const Fault& fault : plan.faults) {
    kinds.insert(fault.kind);
    hit.insert(fault.node);
  }
  CHECK(kinds.size() == all_kinds().size());
  CHECK(hit.size() == 3);
  for (const FaultKind kind : all_kinds()) CHECK(kind_of(name_of(kind)) == kind);
  CHECK_THROWS_AS(kind_of("flood"), Error);
}
