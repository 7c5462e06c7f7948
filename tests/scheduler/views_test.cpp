#include <stdexcept>

#include <doctest/doctest.h>

#include "tests/scheduler/support.hpp"

using namespace troupe::scheduler;

TEST_CASE("a slot set counts, joins and subtracts like a set") {
  SlotSet a = slots({0, 63, 64, 1023}), b = slots({1, 64});
  CHECK(a.count() == 4);
  CHECK(a.contains(1023));
  CHECK_FALSE(a.contains(1022));
  CHECK_FALSE(a.disjoint(b));
  CHECK(a.disjoint(slots({1, 2, 65})));
  CHECK((a | b) == slots({0, 1, 63, 64, 1023}));
  CHECK((a - b) == slots({0, 63, 1023}));
  CHECK((a - a).empty());
  CHECK(a.to_vector() == std::vector<uint32_t>{0, 63, 64, 1023});
  CHECK(*b.lowest() == 1);
  CHECK_FALSE(SlotSet().lowest());
}

TEST_CASE("equal slot sets are equal whatever way they were made") {
  SlotSet a = slots({3, 500});
  a.erase(500);
  a.erase(999);
  CHECK(a == slots({3}));
  CHECK(SlotSet::from_words({8, 0, 0}) == slots({3}));
  CHECK(SlotSet::first(65).words() == std::vector<uint64_t>{~uint64_t{0}, 1});
}

TEST_CASE("a slot beyond the largest set is refused") {
  CHECK_THROWS_AS(slots({1024}), std::invalid_argument);
  CHECK_THROWS_AS(SlotSet::from_words(std::vector<uint64_t>(17, 1)), std::invalid_argument);
}

TEST_CASE("ballots are ordered by number, then by leader") {
  CHECK(Ballot{1, 5} < Ballot{2, 0});
  CHECK(Ballot{2, 0} < Ballot{2, 1});
}

TEST_CASE("held-out slots come with every n-th step and with the last") {
  const SlotPlan plan{.training = 8, .evaluation = 3, .evaluate_every = 10, .steps = 25};
  CHECK(plan.slots(0) == 11);
  CHECK(plan.slots(1) == 8);
  CHECK(plan.slots(20) == 11);
  CHECK(plan.slots(24) == 11);
  CHECK(plan.is_evaluation(8));
  CHECK_FALSE(plan.is_evaluation(7));
  const SlotPlan never{.training = 8, .evaluation = 3, .evaluate_every = 0, .steps = 25};
  CHECK(never.slots(24) == 8);
}
