#include "scheduler/coordinator.hpp"

#include <doctest/doctest.h>

#include "tests/scheduler/support.hpp"

using namespace troupe::scheduler;

namespace {

const SlotPlan kPlan{.training = 4, .evaluation = 0, .evaluate_every = 0, .steps = 2};

Claim claim(int64_t step, uint64_t sequence, uint32_t wanted, SlotSet done = {}, double seconds = 1) {
  Claim c;
  c.fence = {{1, 0}, step};
  c.sequence = sequence;
  c.wanted = wanted;
  c.done = std::move(done);
  c.digest = "x" + std::to_string(step);
  c.slot_seconds = seconds;
  return c;
}

SlotSet granted(const CoordinatorActions& actions) {
  const auto grants = pick<SendGrant>(actions);
  REQUIRE(grants.size() == 1);
  return grants[0].grant.slots;
}

}  // namespace

TEST_CASE("every slot is granted to one member, and the seal covers them all") {
  Coordinator coordinator(make_view(2), kPlan, 0);
  const SlotSet a = granted(coordinator.on_claim(0, claim(0, 1, 2), 0));
  CHECK(a.count() == 2);
  CHECK_FALSE(coordinator.sealed());
  const auto last = coordinator.on_claim(1, claim(0, 1, 2), 10);
  const SlotSet b = granted(last);
  CHECK(a.disjoint(b));
  REQUIRE(pick<SendSeal>(last).size() == 1);
  const SendSeal sealed = pick<SendSeal>(last)[0];
  CHECK_FALSE(sealed.to);
  CHECK(sealed.seal.contributions.at(0) == a);
  CHECK(sealed.seal.contributions.at(1) == b);
  CHECK((a | b) == SlotSet::first(4));
}

TEST_CASE("a repeated claim gets the same answer") {
  Coordinator coordinator(make_view(2), kPlan, 0);
  const SlotSet first = granted(coordinator.on_claim(0, claim(0, 1, 1), 0));
  CHECK(granted(coordinator.on_claim(0, claim(0, 1, 1), 500'000)) == first);
  CHECK(granted(coordinator.on_claim(0, claim(0, 2, 1), 600'000)).disjoint(first));
  CHECK(coordinator.on_claim(0, claim(0, 1, 1), 700'000).empty());  // overtaken by a later one
}

TEST_CASE("claims of other ballots, other steps and strangers change nothing") {
  Coordinator coordinator(make_view(2), kPlan, 0);
  Claim old = claim(0, 1, 4);
  old.fence.ballot = {0, 0};
  CHECK(coordinator.on_claim(0, old, 0).empty());
  CHECK(coordinator.on_claim(7, claim(0, 1, 4), 0).empty());
  CHECK(pick<Failure>(coordinator.on_claim(0, claim(1, 1, 4), 0)).size() == 1);
  CHECK(granted(coordinator.on_claim(0, claim(0, 1, 2), 0)).count() == 2);
}

TEST_CASE("the first claim of the next step moves on; a late one of the step before is dropped") {
  Coordinator coordinator(make_view(1), kPlan, 0);
  coordinator.on_claim(0, claim(0, 1, 4), 0);
  CHECK(coordinator.sealed());
  const auto next = coordinator.on_claim(0, claim(1, 2, 1), 10);
  CHECK(coordinator.step() == 1);
  CHECK(granted(next).count() == 1);
  CHECK(coordinator.on_claim(0, claim(0, 1, 4), 20).empty());
}

TEST_CASE("a slow member gets no slot that the fast one would finish sooner") {
  Coordinator coordinator(make_view(2), kPlan, 0);
  CHECK(granted(coordinator.on_claim(0, claim(0, 1, 1, {}, 1.0), 0)).count() == 1);
  CHECK(granted(coordinator.on_claim(1, claim(0, 1, 1, {}, 10.0), 0)).empty());  // 4 x 1 s beat 1 x 10 s
  SlotSet done = SlotSet::first(0);
  const auto sealed_by_fast = coordinator.on_claim(0, claim(0, 2, 4, done, 1.0), 1000);
  CHECK(pick<SendSeal>(sealed_by_fast).size() == 1);
}

TEST_CASE("equal members share a short step instead of one taking all of it") {
  const SlotPlan two{.training = 2, .evaluation = 0, .evaluate_every = 0, .steps = 1};
  Coordinator coordinator(make_view(2), two, 0);
  CHECK(granted(coordinator.on_claim(0, claim(0, 1, 2), 0)).count() == 1);
  CHECK(granted(coordinator.on_claim(1, claim(0, 1, 2), 10)).count() == 1);
}

TEST_CASE("a member that stays silent does not keep slots from the others") {
  const SlotPlan two{.training = 2, .evaluation = 0, .evaluate_every = 0, .steps = 1};
  Coordinator coordinator(make_view(2), two, 0);
  CHECK(granted(coordinator.on_claim(0, claim(0, 1, 2), 0)).count() == 1);
  CHECK(granted(coordinator.on_claim(0, claim(0, 2, 1, slots({0})), 5'000'000)).count() == 1);
}

TEST_CASE("members keep the slots they had, so that prefetched samples are used") {
  Coordinator coordinator(make_view(2), kPlan, 0);
  const SlotSet a = granted(coordinator.on_claim(0, claim(0, 1, 2), 0));
  const SlotSet b = granted(coordinator.on_claim(1, claim(0, 1, 2), 0));
  CHECK(granted(coordinator.on_claim(1, claim(1, 2, 2), 10)) == b);
  CHECK(granted(coordinator.on_claim(0, claim(1, 2, 2), 10)) == a);
}

TEST_CASE("states that differ end the job with both names") {
  Coordinator coordinator(make_view(2), kPlan, 0);
  coordinator.on_claim(0, claim(0, 1, 2), 0);
  Claim other = claim(0, 1, 2);
  other.digest = "y";
  const auto failures = pick<Failure>(coordinator.on_claim(1, other, 0));
  REQUIRE(failures.size() == 1);
  CHECK(failures[0].kind == Failure::Kind::numeric);
  CHECK(failures[0].message.find("node0 and node1 differ before step 0") != std::string::npos);
}

TEST_CASE("the job ends when every member has committed the last step") {
  const SlotPlan one{.training = 2, .evaluation = 0, .evaluate_every = 0, .steps = 1};
  Coordinator coordinator(make_view(2), one, 0);
  coordinator.on_claim(0, claim(0, 1, 1), 0);
  coordinator.on_claim(1, claim(0, 1, 1), 0);
  CHECK(pick<AllCommitted>(coordinator.on_claim(0, claim(1, 2, 0), 1)).empty());
  const auto ended = pick<AllCommitted>(coordinator.on_claim(1, claim(1, 2, 0), 2));
  REQUIRE(ended.size() == 1);
  CHECK(ended[0].step == 1);
  CHECK(ended[0].digest == "x1");
}

TEST_CASE("a stop ends the job at the next boundary") {
  const SlotPlan many{.training = 2, .evaluation = 0, .evaluate_every = 0, .steps = 100};
  SUBCASE("after the step in which slots are out") {
    Coordinator coordinator(make_view(1, 0, 5), many, 0);
    Claim first = claim(5, 1, 1);
    CHECK(granted(coordinator.on_claim(0, first, 0)).count() == 1);
    CHECK(coordinator.stop().empty());
    CHECK(coordinator.end_step() == 6);
    coordinator.on_claim(0, claim(5, 2, 1, slots({0})), 1);
    CHECK(pick<AllCommitted>(coordinator.on_claim(0, claim(6, 3, 2), 2)).size() == 1);
  }
  SUBCASE("at once when none is") {
    Coordinator coordinator(make_view(2, 0, 5), many, 0);
    CHECK(coordinator.stop().empty());
    CHECK(granted(coordinator.on_claim(0, claim(5, 1, 2), 0)).empty());
    CHECK(pick<AllCommitted>(coordinator.on_claim(1, claim(5, 1, 2), 0)).size() == 1);
  }
}

TEST_CASE("slots whose sums a view keeps are granted already, to those who hold them") {
  View view = make_view(2);
  view.kept = {{0, slots({0, 1})}, {1, slots({2})}};
  Coordinator coordinator(view, kPlan, 0);
  const auto actions = coordinator.on_claim(1, claim(0, 1, 4, slots({2})), 10);
  CHECK(granted(actions) == slots({3}));
  REQUIRE(pick<SendSeal>(actions).size() == 1);
  CHECK(pick<SendSeal>(actions)[0].seal.contributions.at(0) == slots({0, 1}));
  CHECK(pick<SendSeal>(actions)[0].seal.contributions.at(1) == slots({2, 3}));
}

TEST_CASE("a view that keeps every slot is sealed from the start; whoever claims hears of it") {
  View view = make_view(2);
  view.kept = {{0, slots({0, 1, 2})}, {1, slots({3})}};
  Coordinator coordinator(view, kPlan, 0);
  CHECK(coordinator.sealed());
  CHECK(pick<SendSeal>(coordinator.on_claim(0, claim(0, 1, 2, slots({0, 1, 2})), 10)).size() == 1);
}

TEST_CASE("a member that alone holds up the others is found, once a while; a slow step is no reason") {
  constexpr Microseconds kSecond = 1'000'000;
  Coordinator coordinator(make_view(2), {.training = 2, .evaluation = 0, .evaluate_every = 0, .steps = 2}, 0,
                          5 * kSecond);
  const auto claim = [&](Rank from, uint64_t sequence, SlotSet done, uint32_t wanted, Microseconds at) {
    Claim one;
    one.fence = {{1, 0}, 0};
    one.sequence = sequence;
    one.done = std::move(done);
    one.wanted = wanted;
    one.slot_seconds = 0.1;
    return coordinator.on_claim(from, one, at);
  };
  const SlotSet first = pick<SendGrant>(claim(0, 1, {}, 1, 0)).at(0).grant.slots;
  claim(1, 1, {}, 1, 0);
  REQUIRE(coordinator.sealed());
  claim(0, 2, first, 0, kSecond);
  CHECK(coordinator.on_tick(2 * kSecond).empty());
  CHECK(coordinator.on_tick(4 * kSecond).empty());
  CHECK(pick<SendSeal>(claim(0, 2, first, 0, kSecond)).size() == 1);  // it may not know
  const auto stuck = pick<MemberStuck>(coordinator.on_tick(6 * kSecond));
  REQUIRE(stuck.size() == 1);
  CHECK(stuck[0].rank == 1);
  CHECK(coordinator.on_tick(7 * kSecond).empty());
}

TEST_CASE("a coordinator that stood still itself blames nobody for that time") {
  constexpr Microseconds kSecond = 1'000'000;
  Coordinator coordinator(make_view(2), kPlan, 0, 5 * kSecond);
  const SlotSet first = granted(coordinator.on_claim(0, claim(0, 1, 2), 0));
  coordinator.on_claim(1, claim(0, 1, 2), 0);
  REQUIRE(coordinator.sealed());
  coordinator.on_claim(0, claim(0, 2, 0, first, 0.1), 100'000);
  CHECK(coordinator.on_tick(2 * kSecond).empty());
  CHECK(coordinator.on_tick(60 * kSecond).empty());
  for (int second = 62; second < 65; second += 2) CHECK(coordinator.on_tick(second * kSecond).empty());
  size_t found = 0;
  for (int second = 66; second < 120; second += 2)
    found += pick<MemberStuck>(coordinator.on_tick(second * kSecond)).size();
  CHECK(found > 0);
}

TEST_CASE("a ring may take any time: who has done its slots does not stand still") {
  Coordinator coordinator(make_view(2), kPlan, 0, 1'000'000);
  const SlotSet first = granted(coordinator.on_claim(0, claim(0, 1, 2), 0));
  const SlotSet second = granted(coordinator.on_claim(1, claim(0, 1, 2), 0));
  REQUIRE(coordinator.sealed());
  coordinator.on_claim(0, claim(0, 2, 0, first, 0.1), 100'000);
  Claim last = claim(0, 2, 0, second, 0.1);
  last.sealed = true;
  CHECK(pick<SendSeal>(coordinator.on_claim(1, last, 200'000)).empty());
  CHECK(coordinator.on_tick(3'600'000'000).empty());
}
