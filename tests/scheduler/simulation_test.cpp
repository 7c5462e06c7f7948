#include "simulation/simulation.hpp"

#include <doctest/doctest.h>

using namespace troupe::simulation;

TEST_CASE("a cluster without faults forms one view and ends with the bits of one process") {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    CAPTURE(seed);
    Scenario scenario = make_scenario(seed);
    scenario.faults.clear();
    Simulation simulation(scenario);
    simulation.run();
    CHECK(simulation.views() == 1);
    CHECK(simulation.end_step() == scenario.plan.steps);
  }
}

TEST_CASE("whatever goes wrong, no invariant is broken and the job ends with the same bits") {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    CAPTURE(seed);
    Simulation simulation(make_scenario(seed));
    CHECK_NOTHROW(simulation.run());
  }
}

TEST_CASE("a seed gives the same run, event by event") {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Simulation first(make_scenario(seed)), second(make_scenario(seed));
    first.run();
    second.run();
    CHECK(first.events() == second.events());
    CHECK(first.now() == second.now());
    CHECK(first.views() == second.views());
  }
}

TEST_CASE("a stop at any moment ends every member at the same step") {
  int early = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    CAPTURE(seed);
    Scenario scenario = make_scenario(seed);
    scenario.plan.steps = 50;
    scenario.faults = {{FaultKind::halt, 30 + 17 * seed, 0, 0, 1'000}};
    Simulation simulation(scenario);
    simulation.run();
    early += simulation.end_step() < 50;
  }
  CHECK(early > 90);
}
