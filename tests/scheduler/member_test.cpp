#include "scheduler/member.hpp"

#include <doctest/doctest.h>

#include "tests/scheduler/support.hpp"

using namespace troupe::scheduler;

namespace {

const SlotPlan kPlan{.training = 4, .evaluation = 0, .evaluate_every = 0, .steps = 3};
const MemberOptions kOneWorker{.self = 0, .workers = 1, .lookahead = 1, .repeat_us = 1000, .retry_us = 100};

Grant grant(int64_t step, uint64_t sequence, SlotSet set) {
  return {{{1, 0}, step}, sequence, std::move(set)};
}
Seal seal(int64_t step, SlotSet mine) {
  return {{{1, 0}, step}, {{0, mine}, {1, SlotSet::first(4) - mine}}, {}};
}

}  // namespace

TEST_CASE("a member claims, runs one slot a worker, and claims again while the next one waits") {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  const auto claims = pick<SendClaim>(member.begin(make_view(2), 0));
  REQUIRE(claims.size() == 1);
  CHECK(claims[0].claim.wanted == 2);
  const auto actions = member.on_grant(grant(0, 1, slots({0, 1})), 1);
  REQUIRE(pick<RunSlot>(actions).size() == 1);
  CHECK(pick<RunSlot>(actions)[0].slot == 0);
  REQUIRE(pick<PrefetchSlots>(actions).size() == 1);
  CHECK(pick<PrefetchSlots>(actions)[0].slots == std::vector<uint32_t>{1});
  const auto after = member.on_slot_done(0, 0, 0.5, 2);
  CHECK(pick<RunSlot>(after)[0].slot == 1);
  REQUIRE(pick<SendClaim>(after).size() == 1);
  CHECK(pick<SendClaim>(after)[0].claim.done == slots({0}));
  CHECK(pick<SendClaim>(after)[0].claim.slot_seconds == doctest::Approx(0.5));
}

TEST_CASE("a member with more workers than a step can have slots asks for no more than that") {
  MemberOptions many = kOneWorker;
  many.workers = many.lookahead = 600;
  MemberRole member(many, kPlan, 0, "x0");
  CHECK(pick<SendClaim>(member.begin(make_view(2), 0)).at(0).claim.wanted == kSlotsMax);
}

TEST_CASE("the ring starts when the step is sealed and every own slot is folded") {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  member.begin(make_view(2), 0);
  member.on_grant(grant(0, 1, slots({0, 1})), 1);
  CHECK(pick<StartReduce>(member.on_seal(seal(0, slots({0, 1})), 2)).empty());
  member.on_slot_done(0, 0, 1, 3);
  const auto actions = member.on_slot_done(0, 1, 1, 4);
  REQUIRE(pick<StartReduce>(actions).size() == 1);
  CHECK(pick<PrefetchSlots>(actions).at(0).step == 1);
  CHECK(pick<StartCommit>(member.on_reduced({{1, 0}, 0})).size() == 1);
  const auto next = member.on_committed(0, "x1", 5);
  REQUIRE(pick<SendClaim>(next).size() == 1);
  CHECK(pick<SendClaim>(next)[0].claim.fence.step == 1);
  CHECK(pick<SendClaim>(next)[0].claim.digest == "x1");
}

TEST_CASE("a ring is fed when the step is sealed while own slots run, at the cost of the total before") {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  member.begin(make_view(2), 0);
  member.on_seal(seal(0, {}), 1);
  member.on_reduced({{1, 0}, 0});
  member.on_committed(0, "x1", 2);
  REQUIRE(member.holds_total());
  member.on_grant(grant(1, 2, slots({0, 1})), 3);
  const auto actions = member.on_seal(seal(1, slots({0, 1})), 4);
  REQUIRE(pick<FeedReduce>(actions).size() == 1);
  CHECK(pick<FeedReduce>(actions)[0].seal == seal(1, slots({0, 1})));
  CHECK(!member.holds_total());
  CHECK(pick<FeedReduce>(member.on_slot_done(1, 0, 1, 5)).empty());
  CHECK(pick<StartReduce>(member.on_slot_done(1, 1, 1, 6)).size() == 1);
}

TEST_CASE("a ring is not fed by a member whose slots are done, nor by one that is alone") {
  MemberRole idle(kOneWorker, kPlan, 0, "x0");
  idle.begin(make_view(2), 0);
  CHECK(pick<FeedReduce>(idle.on_seal(seal(0, {}), 1)).empty());
  MemberRole alone(kOneWorker, kPlan, 0, "x0");
  alone.begin(make_view(1), 0);
  alone.on_grant(grant(0, 1, slots({0, 1})), 1);
  CHECK(pick<FeedReduce>(alone.on_seal({{{1, 0}, 0}, {{0, slots({0, 1, 2, 3})}}, {}}, 2)).empty());
}

TEST_CASE("a seal that overtakes its grant brings the slots itself, once") {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  member.begin(make_view(2), 0);
  CHECK(pick<RunSlot>(member.on_seal(seal(0, slots({2})), 1)).size() == 1);
  CHECK(member.on_grant(grant(0, 1, slots({2})), 2).empty());
  CHECK(pick<StartReduce>(member.on_slot_done(0, 2, 1, 3)).size() == 1);
}

TEST_CASE("a member without a slot still takes part in the ring") {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  member.begin(make_view(2), 0);
  CHECK(pick<StartReduce>(member.on_seal(seal(0, {}), 1)).size() == 1);
}

TEST_CASE("a member that ends its slots after the seal says so, until it is answered, while the ring runs") {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  member.begin(make_view(2), 0);
  member.on_grant(grant(0, 1, slots({1})), 1);
  member.on_seal(seal(0, slots({1})), 2);
  const auto actions = member.on_slot_done(0, 1, 1, 3);
  REQUIRE(pick<SendClaim>(actions).size() == 1);
  const Claim last = pick<SendClaim>(actions)[0].claim;
  CHECK(last.sealed);
  CHECK(last.wanted == 0);
  CHECK(last.done == slots({1}));
  CHECK(pick<SendClaim>(member.on_tick(1003)).at(0).claim == last);
  CHECK(member.on_grant(grant(0, last.sequence, {}), 1004).empty());
  CHECK(member.on_tick(3000).empty());

  // A new view's leader has heard nothing of it.
  member.on_reduce_failed({{1, 0}, 0});
  member.fence({2, 1});
  View view = make_view(2, 1);
  view.ballot = {2, 1};
  view.kept = {{0, slots({1})}};
  CHECK(pick<SendClaim>(member.begin(view, 4000)).at(0).claim.done == slots({1}));
  const auto again = member.on_seal({{{2, 1}, 0}, {{0, slots({1})}, {1, slots({0, 2, 3})}}, {}}, 4001);
  CHECK(pick<SendClaim>(again).size() == 1);
}

TEST_CASE("a member whose leader knows of all its slots says nothing more") {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  member.begin(make_view(2), 0);
  member.on_grant(grant(0, 1, slots({1})), 1);
  member.on_slot_done(0, 1, 1, 2);
  member.on_grant(grant(0, 2, {}), 3);
  const Claim told = pick<SendClaim>(member.on_tick(103)).at(0).claim;
  REQUIRE(told.done == slots({1}));
  member.on_grant(grant(0, told.sequence, {}), 104);
  const auto actions = member.on_seal(seal(0, slots({1})), 105);
  CHECK(pick<StartReduce>(actions).size() == 1);
  CHECK(pick<SendClaim>(actions).empty());
}

TEST_CASE("an unanswered claim is repeated word for word") {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  const Claim first = pick<SendClaim>(member.begin(make_view(2), 0)).at(0).claim;
  CHECK(member.on_tick(999).empty());
  const auto again = pick<SendClaim>(member.on_tick(1000));
  REQUIRE(again.size() == 1);
  CHECK(again[0].claim == first);
}

TEST_CASE("after an empty grant a member asks again a little later, with a new sequence number") {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  member.begin(make_view(2), 0);
  CHECK(member.on_grant(grant(0, 1, {}), 10).empty());
  CHECK(member.on_tick(50).empty());
  const auto again = pick<SendClaim>(member.on_tick(110));
  REQUIRE(again.size() == 1);
  CHECK(again[0].claim.sequence == 2);
}

TEST_CASE("messages of other steps, other ballots and old answers are dropped") {
  MemberRole member(kOneWorker, kPlan, 1, "x1");
  member.begin(make_view(2, 0, 1), 0);
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
    MemberRole member(kOneWorker, kPlan, 0, "x0");
    member.begin(make_view(2), 0);
    member.on_grant(grant(0, 1, slots({0})), 1);
    const auto failures = pick<Failure>(member.on_seal(Seal{{{1, 0}, 0}, c.contributions, {}}, 2));
    REQUIRE(failures.size() == 1);
    CHECK(failures[0].message.find(c.why) != std::string::npos);
  }
}

TEST_CASE("nothing is committed, reduced or finished out of turn") {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  member.begin(make_view(2), 0);
  CHECK(pick<Failure>(member.on_committed(0, "x1", 1)).size() == 1);
  CHECK(member.on_reduced({{1, 0}, 0}).empty());
  CHECK(pick<Failure>(member.on_slot_done(0, 0, 1, 1)).size() == 1);
}

namespace {

// Slots 0 and 1 are granted; 0 is folded, 1 runs.
MemberRole half_way() {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  member.begin(make_view(2), 0);
  member.on_grant(grant(0, 1, slots({0, 1, 2})), 1);
  member.on_slot_done(0, 0, 1, 2);
  return member;
}

View next_view(SlotSet kept, int64_t step = 0) {
  View view = make_view(2, 1, step);
  view.ballot = {2, 1};
  if (!kept.empty()) view.kept[0] = std::move(kept);
  return view;
}

}  // namespace

TEST_CASE("a promise is answered with what is folded and what runs, and no slot starts after it") {
  MemberRole member = half_way();
  const auto fenced = pick<Fenced>(member.fence({2, 1}));
  REQUIRE(fenced.size() == 1);
  CHECK(fenced[0].inventory.ballot == Ballot{2, 1});
  CHECK(fenced[0].inventory.folded == slots({0}));
  CHECK(fenced[0].inventory.half_folded == slots({1}));
  CHECK(member.on_slot_done(0, 1, 1, 3).empty());  // slot 2 was granted, and stays where it is
  CHECK(member.on_tick(1'000'000).empty());
}

TEST_CASE("a sum that the view keeps is gone on with") {
  MemberRole member = half_way();
  member.fence({2, 1});
  const auto claims = pick<SendClaim>(member.begin(next_view(slots({0, 1})), 4));
  REQUIRE(claims.size() == 1);
  CHECK(claims[0].claim.fence.ballot == Ballot{2, 1});
  CHECK(claims[0].claim.done == slots({0}));
}

TEST_CASE("a sum that the view drops is cleared when nothing folds into it any more") {
  MemberRole member = half_way();
  member.fence({2, 1});
  CHECK(member.begin(next_view({}), 4).empty());
  const auto actions = member.on_slot_done(0, 1, 1, 5);
  CHECK(pick<ClearSum>(actions).size() == 1);
  CHECK(pick<SendClaim>(actions).empty());
  SUBCASE("and then claims anew") {
    const auto claims = pick<SendClaim>(member.on_cleared(6));
    REQUIRE(claims.size() == 1);
    CHECK(claims[0].claim.done.empty());
  }
  SUBCASE("and answers a promise only then") {
    CHECK(member.fence({3, 0}).empty());
    const auto fenced = pick<Fenced>(member.on_cleared(6));
    REQUIRE(fenced.size() == 1);
    CHECK(fenced[0].inventory.folded.empty());
  }
}

TEST_CASE("a ring is stopped before a promise is answered, and a commit under way ends first") {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  member.begin(make_view(2), 0);
  member.on_seal(seal(0, {}), 1);
  const auto stop = member.fence({2, 1});
  CHECK(pick<StopReduce>(stop).size() == 1);
  CHECK(pick<Fenced>(stop).empty());
  SUBCASE("the ring stopped") {
    const auto fenced = pick<Fenced>(member.on_reduce_failed({{1, 0}, 0}));
    REQUIRE(fenced.size() == 1);
    CHECK(fenced[0].inventory.step == 0);
  }
  SUBCASE("it had ended already") {
    CHECK(pick<StartCommit>(member.on_reduced({{1, 0}, 0})).size() == 1);
    const auto fenced = pick<Fenced>(member.on_committed(0, "x1", 3));
    REQUIRE(fenced.size() == 1);
    CHECK(fenced[0].inventory.step == 1);
    CHECK(fenced[0].inventory.digest == "x1");
    CHECK(fenced[0].inventory.holds_total);
  }
}

TEST_CASE("a member that is one step behind takes the total from a peer, after its running slots") {
  MemberRole member = half_way();
  member.fence({2, 1});
  View view = next_view({}, 1);
  view.total_source = 1;
  const auto fetch = pick<FetchTotal>(member.begin(view, 4));
  REQUIRE(fetch.size() == 1);
  CHECK(fetch[0].source == 1);
  CHECK(fetch[0].fence.step == 0);
  CHECK(member.on_total_fetched(fetch[0].fence).empty());
  CHECK(pick<StartCommit>(member.on_slot_done(0, 1, 1, 5)).size() == 1);
  const auto claims = pick<SendClaim>(member.on_committed(0, "x1", 6));
  REQUIRE(claims.size() == 1);
  CHECK(claims[0].claim.fence.step == 1);
}

TEST_CASE("a member that wants to leave does its part of the step and takes no slot of the next") {
  MemberRole member(kOneWorker, kPlan, 0, "x0");
  member.begin(make_view(2), 0);
  member.leave();
  CHECK_FALSE(member.wants_to_leave());
  member.on_grant(grant(0, 1, slots({0})), 1);
  member.on_seal(seal(0, slots({0})), 2);
  member.on_slot_done(0, 0, 1, 3);
  member.on_reduced({{1, 0}, 0});
  const auto claims = pick<SendClaim>(member.on_committed(0, "x1", 4));
  CHECK(claims.at(0).claim.wanted == 0);
  CHECK(member.wants_to_leave());
}
