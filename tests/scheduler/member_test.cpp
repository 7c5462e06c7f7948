#include "scheduler/member.hpp"

#include <doctest/doctest.h>

#include "support.hpp"

using namespace troupe::scheduler;

namespace {

const SlotPlan kPlan{.training = 4, .evaluation = 0, .evaluate_every = 0, .steps = 3};
const MemberOptions kOneWorker{.self = 0, .workers = 1, .lookahead = 1, .repeat_us = 1000, .retry_us = 100};

Grant grant(int64_t step, uint64_t sequence, SlotSet set) {
  return {{{1, 0}, step}, sequence, std::move(set)};
}
Seal seal(int64_t step, SlotSet mine) {
  return {{{1, 0}, step}, {{0, mine}, {1, SlotSet::first(4) - mine}}};
}

}  // namespace

TEST_CASE("a member claims, runs one slot a worker, and claims again while the next one waits") {
  MemberRole member(kOneWorker, make_view(2), kPlan, 0, "x0");
  const auto claims = pick<SendClaim>(member.start(0));
  REQUIRE(claims.size() == 1);
  CHECK(claims[0].claim.wanted == 2);
  const auto actions = member.on_grant(grant(0, 1, slots({0, 1})), 1);
  REQUIRE(pick<RunSlot>(actions).size() == 1);
  CHECK(pick<RunSlot>(actions)[0].slot == 0);
  REQUIRE(pick<PrefetchSlots>(actions).size() == 1);
  CHECK(pick<PrefetchSlots>(actions)[0].slots == std::vector<uint32_t>{1});
  const auto after = member.on_slot_done(0, 0, 0.5, 0, 2);
  CHECK(pick<RunSlot>(after)[0].slot == 1);
  REQUIRE(pick<SendClaim>(after).size() == 1);
  CHECK(pick<SendClaim>(after)[0].claim.done == slots({0}));
  CHECK(pick<SendClaim>(after)[0].claim.slot_seconds == doctest::Approx(0.5));
}

TEST_CASE("the ring starts when the step is sealed and every own slot is folded") {
  MemberRole member(kOneWorker, make_view(2), kPlan, 0, "x0");
  member.start(0);
  member.on_grant(grant(0, 1, slots({0, 1})), 1);
  CHECK(pick<StartReduce>(member.on_seal(seal(0, slots({0, 1})), 2)).empty());
  member.on_slot_done(0, 0, 1, 0, 3);
  const auto actions = member.on_slot_done(0, 1, 1, 0, 4);
  REQUIRE(pick<StartReduce>(actions).size() == 1);
  CHECK(pick<PrefetchSlots>(actions).at(0).step == 1);
  CHECK(pick<StartCommit>(member.on_reduced(0)).size() == 1);
  const auto next = member.on_committed(0, "x1", 5);
  REQUIRE(pick<SendClaim>(next).size() == 1);
  CHECK(pick<SendClaim>(next)[0].claim.fence.step == 1);
  CHECK(pick<SendClaim>(next)[0].claim.digest == "x1");
}

TEST_CASE("a seal that overtakes its grant brings the slots itself, once") {
  MemberRole member(kOneWorker, make_view(2), kPlan, 0, "x0");
  member.start(0);
  CHECK(pick<RunSlot>(member.on_seal(seal(0, slots({2})), 1)).size() == 1);
  CHECK(member.on_grant(grant(0, 1, slots({2})), 2).empty());
  CHECK(pick<StartReduce>(member.on_slot_done(0, 2, 1, 0, 3)).size() == 1);
}

TEST_CASE("a member without a slot still takes part in the ring") {
  MemberRole member(kOneWorker, make_view(2), kPlan, 0, "x0");
  member.start(0);
  CHECK(pick<StartReduce>(member.on_seal(seal(0, {}), 1)).size() == 1);
}

TEST_CASE("an unanswered claim is repeated word for word") {
  MemberRole member(kOneWorker, make_view(2), kPlan, 0, "x0");
  const Claim first = pick<SendClaim>(member.start(0)).at(0).claim;
  CHECK(member.on_tick(999).empty());
  const auto again = pick<SendClaim>(member.on_tick(1000));
  REQUIRE(again.size() == 1);
  CHECK(again[0].claim == first);
}

TEST_CASE("after an empty grant a member asks again a little later, with a new sequence number") {
  MemberRole member(kOneWorker, make_view(2), kPlan, 0, "x0");
  member.start(0);
  CHECK(member.on_grant(grant(0, 1, {}), 10).empty());
  CHECK(member.on_tick(50).empty());
  const auto again = pick<SendClaim>(member.on_tick(110));
  REQUIRE(again.size() == 1);
  CHECK(again[0].claim.sequence == 2);
}

TEST_CASE("messages of other steps, other ballots and old answers are dropped") {
  MemberRole member(kOneWorker, make_view(2), kPlan, 1, "x1");
  member.start(0);
  CHECK(member.on_grant(grant(0, 1, slots({0})), 1).empty());
  CHECK(member.on_grant(grant(1, 9, slots({0})), 1).empty());
  Grant old = grant(1, 1, slots({0}));
  old.fence.ballot = {0, 3};
  CHECK(member.on_grant(old, 1).empty());
  CHECK(member.on_seal(seal(0, slots({0})), 1).empty());
  CHECK(member.granted().empty());
}

TEST_CASE("a seal that breaks the rules ends the job") {
  struct Case {
    const char* why;
    std::map<Rank, SlotSet> contributions;
  };
  const Case cases[] = {
      {"two nodes", {{0, slots({0, 1})}, {1, slots({1, 2, 3})}}},
      {"does not cover", {{0, slots({0, 1})}, {1, slots({2})}}},
      {"not in the view", {{0, slots({0, 1})}, {5, slots({2, 3})}}},
      {"takes back", {{1, slots({0, 1, 2, 3})}}},
  };
  for (const Case& c : cases) {
    CAPTURE(c.why);
    MemberRole member(kOneWorker, make_view(2), kPlan, 0, "x0");
    member.start(0);
    member.on_grant(grant(0, 1, slots({0})), 1);
    const auto failures = pick<Failure>(member.on_seal(Seal{{{1, 0}, 0}, c.contributions}, 2));
    REQUIRE(failures.size() == 1);
    CHECK(failures[0].message.find(c.why) != std::string::npos);
  }
}

TEST_CASE("nothing is committed, reduced or finished out of turn") {
  MemberRole member(kOneWorker, make_view(2), kPlan, 0, "x0");
  member.start(0);
  CHECK(pick<Failure>(member.on_committed(0, "x1", 1)).size() == 1);
  CHECK(pick<Failure>(member.on_reduced(0)).size() == 1);
  CHECK(pick<Failure>(member.on_slot_done(0, 0, 1, 0, 1)).size() == 1);
}
