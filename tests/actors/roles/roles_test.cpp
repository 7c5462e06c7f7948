#include <doctest/doctest.h>

#include "actors/guarded.hpp"
#include "actors/wire.hpp"
#include "tests/actors/support.hpp"

using namespace troupe;
using namespace troupe::actors;

namespace {

scheduler::View view_of_nodes(uint32_t nodes) {
  scheduler::View view;
  view.ballot = {7, 0};
  for (scheduler::Rank rank = 0; rank < nodes; ++rank)
    view.members.push_back({rank, fmt::format("node{}", rank), "", "", ""});
  return view;
}

// What slots ran and what was committed, by stand-ins that do no arithmetic.
struct Work {
  std::vector<std::pair<int64_t, uint32_t>> slots;
  std::vector<int64_t> reduced, committed;
};

loader_actor spawn_loader_stand_in(TestSystem& test) {
  return test.system.spawn([]() -> loader_actor::behavior_type {
    return {[](const Post&) {}, [](Tick) {}, [](OpenDataset) { return DatasetOpened{}; },
            [](const PrefetchSamples&) {},
            [](const TakeSamples& take) {
              return SlotSamples{take.step, take.slot, std::make_shared<const Batch>()};
            }};
  });
}

trainer_actor spawn_trainer_stand_in(TestSystem& test, uint32_t worker, std::shared_ptr<Work> work) {
  return test.system.spawn([worker, work]() -> trainer_actor::behavior_type {
    return {[worker, work](const SlotSamples& slot) {
              work->slots.emplace_back(slot.step, slot.slot);
              return SlotDone{worker, slot.step, slot.slot, 0.001};
            },
            [](const ShareWork&) { return WorkShared{}; }};
  });
}

aggregator_actor spawn_aggregator_stand_in(TestSystem& test, std::shared_ptr<Work> work,
                                           std::shared_ptr<member_actor> member) {
  return test.system.spawn([work, member](aggregator_actor::pointer self) -> aggregator_actor::behavior_type {
    return {[](const BuildEngine&) { return EngineBuilt{}; },
            [](const TakePart&) {},
            [](const scheduler::BeginView&) {},
            [](const Feed&) {},
            [self, work, member](const Reduce& reduce) {
              work->reduced.push_back(reduce.seal.fence.step);
              self->send(*member, Reduced{reduce.seal.fence});
            },
            [self, work, member](const Commit& commit) {
              work->committed.push_back(commit.step);
              self->send(*member, Committed{commit.step, fmt::format("x{}", commit.step + 1)});
            },
            [](scheduler::ClearSum) {},
            [](const StateWanted&) {},
            [](const KeepTotals&) {},
            [](const InstallState&) { return Installed{}; },
            [](const InstallTotal&) { return Installed{}; },
            [](const SaveFinal&) { return Saved{}; }};
  });
}

// Hears how far the member and the coordinator have come.
membership_actor spawn_membership_stand_in(TestSystem& test, std::shared_ptr<std::vector<int64_t>> steps) {
  return test.system.spawn([steps]() -> membership_actor::behavior_type {
    return {[](const Post&) {},
            [](const JoinCluster&) {},
            [](const PeerLinked&) {},
            [](const PeerUnlinked&) {},
            [](const scheduler::Fenced&) {},
            [steps](const StepReached& at) { steps->push_back(at.step); },
            [](const ViewStepReached&) {},
            [](const MemberIsStuck&) {},
            [](const RingBroken&) {},
            [](Tick) {}};
  });
}

scheduler::BeginView begin(uint32_t nodes) {
  return {view_of_nodes(nodes)};
}

}  // namespace

TEST_CASE("a coordinator and a member carry a job of three steps to its end") {
  TestSystem test;
  const auto heard = std::make_shared<Heard>();
  const auto work = std::make_shared<Work>();
  const auto member = std::make_shared<member_actor>();
  const RoleSetup setup{test_context(1, 0, 3, 5), spawn_supervisor(test, heard)};
  const coordinator_actor coordinator = spawn_coordinator(test.system, setup);
  MemberPeers peers;
  peers.coordinators = {{0, coordinator}};
  peers.loader = spawn_loader_stand_in(test);
  peers.aggregator = spawn_aggregator_stand_in(test, work, member);
  for (uint32_t worker = 0; worker < 2; ++worker)
    peers.trainers.push_back(spawn_trainer_stand_in(test, worker, work));
  const auto reached = std::make_shared<std::vector<int64_t>>();
  const membership_actor membership = spawn_membership_stand_in(test, reached);
  *member = spawn_member(test.system, setup, peers, std::make_shared<RingSession>(setup.context), 0, "x0");
  caf::anon_send(coordinator, TellMembership{membership});
  caf::anon_send(*member, TellMembership{membership});
  caf::anon_send(coordinator, MeetMembers{{{0, *member}}});
  caf::anon_send(coordinator, begin(1));
  caf::anon_send(*member, begin(1));
  test.run();
  CHECK(*reached == std::vector<int64_t>{1, 2, 3});
  CHECK(heard->failures.empty());
  REQUIRE(heard->done.size() == 1);
  CHECK(heard->done[0].step == 3);
  CHECK(work->reduced == std::vector<int64_t>{0, 1, 2});
  CHECK(work->committed == std::vector<int64_t>{0, 1, 2});
  std::sort(work->slots.begin(), work->slots.end());
  REQUIRE(work->slots.size() == 15);
  for (size_t i = 0; i < 15; ++i) CHECK(work->slots[i] == std::pair(int64_t(i / 5), uint32_t(i % 5)));
  for (const auto& trainer : peers.trainers) test.end(trainer);
  test.end(peers.loader, peers.aggregator, *member, membership, coordinator, setup.supervisor);
}

TEST_CASE("a coordinator answers members on other nodes through their proxies, and no other job's") {
  TestSystem test;
  const auto heard = std::make_shared<Heard>();
  const RoleSetup setup{test_context(2, 0, 3, 4), spawn_supervisor(test, heard)};
  const auto first = std::make_shared<std::vector<EnvelopePtr>>(),
             second = std::make_shared<std::vector<EnvelopePtr>>();
  const post_actor here = spawn_listener(test, first), there = spawn_listener(test, second);
  const coordinator_actor coordinator = spawn_coordinator(test.system, setup);
  caf::anon_send(coordinator, MeetMembers{{{0, here}, {1, there}}});
  caf::anon_send(coordinator, begin(2));
  scheduler::Claim claim;
  claim.fence = {{7, 0}, 0};
  claim.sequence = 1;
  claim.wanted = 1;
  claim.digest = "x0";
  JobContext other = *setup.context;
  other.job_id = std::string(32, 'o');
  caf::anon_send(coordinator, Post{1, to_wire(other, claim)});
  test.run();
  CHECK(second->empty());
  caf::anon_send(coordinator, Post{1, to_wire(*setup.context, claim)});
  test.run();
  REQUIRE(second->size() == 1);
  CHECK(grant_of(*second->front()).slots.count() == 1);
  CHECK(first->empty());
  claim.sequence = 2;
  claim.digest = "y0";
  caf::anon_send(coordinator, Post{0, to_wire(*setup.context, claim)});
  test.run();
  REQUIRE(heard->failures.size() == 1);
  CHECK(heard->failures[0].kind == ErrorKind::numeric);
  for (const auto& actor : {here, there}) test.end(actor);
  test.end(coordinator, setup.supervisor);
}

TEST_CASE("a slot whose work throws ends the job with that error") {
  TestSystem test;
  const auto heard = std::make_shared<Heard>();
  const auto work = std::make_shared<Work>();
  const auto member = std::make_shared<member_actor>();
  const RoleSetup setup{test_context(1, 0, 3, 5), spawn_supervisor(test, heard)};
  const coordinator_actor coordinator = spawn_coordinator(test.system, setup);
  MemberPeers peers{
      {{0, coordinator}}, spawn_loader_stand_in(test), spawn_aggregator_stand_in(test, work, member), {}};
  peers.trainers.push_back(
      test.system.spawn([setup](trainer_actor::pointer self) -> trainer_actor::behavior_type {
        return {[self, setup](const SlotSamples&) {
                  return guarded_answer<SlotDone>(self, setup.supervisor, []() -> SlotDone {
                    throw Error(ErrorKind::out_of_memory, "no room for 3 GiB of activations");
                  });
                },
                [](const ShareWork&) { return WorkShared{}; }};
      }));
  const auto reached = std::make_shared<std::vector<int64_t>>();
  const membership_actor membership = spawn_membership_stand_in(test, reached);
  *member = spawn_member(test.system, setup, peers, std::make_shared<RingSession>(setup.context), 0, "x0");
  caf::anon_send(coordinator, TellMembership{membership});
  caf::anon_send(*member, TellMembership{membership});
  caf::anon_send(coordinator, MeetMembers{{{0, *member}}});
  caf::anon_send(coordinator, begin(1));
  caf::anon_send(*member, begin(1));
  test.run();
  REQUIRE_FALSE(heard->failures.empty());
  CHECK(heard->failures[0].kind == ErrorKind::out_of_memory);
  CHECK(heard->failures[0].message == "no room for 3 GiB of activations");
  CHECK(heard->done.empty());
  test.end(peers.trainers[0], peers.loader, peers.aggregator, *member, membership, coordinator,
           setup.supervisor);
}

TEST_CASE("the evaluator judges held-out totals, and says which was the best so far") {
  TestSystem test;
  const auto heard = std::make_shared<Heard>();
  const RoleSetup setup{test_context(1, 0, 3, 4), spawn_supervisor(test, heard)};
  auto judged = std::make_shared<std::vector<Validated>>();
  auto steps = std::make_shared<int>(0), flushed_after = std::make_shared<int>(-1);
  const monitor_actor monitor = test.system.spawn([judged, steps,
                                                   flushed_after]() -> monitor_actor::behavior_type {
    return {[steps](const StepReport&) { ++*steps; }, [judged](const Validated& v) { judged->push_back(v); },
            [](const scheduler::BeginView&) {}, [](const LedgerOfOthers&) {},
            [steps, flushed_after](const FlushReports&) {
              *flushed_after = *steps;
              return ReportsFlushed{};
            }};
  });
  const evaluator_actor evaluator = spawn_evaluator(test.system, setup, monitor);
  for (const int64_t units : {int64_t{100} << 20, int64_t{50} << 20, int64_t{70} << 20}) {
    auto outcome = std::make_shared<StepOutcome>();
    outcome->plan.step = int64_t(judged->size());
    outcome->best_step = std::min<int64_t>(outcome->plan.step, 1);  // as the state has it
    outcome->evaluation = model::LossTotals{units, units, 10, 4};
    caf::anon_send(evaluator, StepReport{outcome, {}, ""});
    caf::anon_send(evaluator, StepReport{std::make_shared<StepOutcome>(), {}, ""});
    test.run();
  }
  CHECK(*steps == 6);
  caf::anon_send(evaluator, StepReport{std::make_shared<StepOutcome>(), {}, ""});
  caf::anon_send(evaluator, FlushReports{});
  test.run();
  CHECK(*flushed_after == 7);
  REQUIRE(judged->size() == 3);
  CHECK((*judged)[0].loss == doctest::Approx(10));
  CHECK((*judged)[0].accuracy == doctest::Approx(0.4));
  CHECK((*judged)[1].best);
  CHECK_FALSE((*judged)[2].best);
  CHECK((*judged)[2].best_step == 1);
  test.end(evaluator, monitor, setup.supervisor);
}
