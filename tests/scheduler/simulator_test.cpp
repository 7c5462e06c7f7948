// The leader's and the members' state machines together over a network that delays, repeats and reorders,
// with slots of random length. Everything follows from one seed, so a failure repeats.
#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <set>

#include <doctest/doctest.h>

#include "support.hpp"

using namespace troupe::scheduler;

namespace {

class Simulation {
 public:
  Simulation(uint64_t seed, uint32_t nodes, SlotPlan plan)
      : random_(seed), plan_(plan), coordinator_(make_view(nodes), plan, 0, 0) {
    for (Rank rank = 0; rank < nodes; ++rank) {
      MemberOptions options{
          .self = rank, .workers = 1 + uint32_t(random_() % 3), .lookahead = uint32_t(random_() % 3)};
      members_.emplace_back(options, make_view(nodes), plan, 0, "x0");
      speed_.push_back(Microseconds(100 + random_() % 20'000));
    }
  }

  void run() {
    for (Rank rank = 0; rank < members_.size(); ++rank) {
      apply(rank, members_[rank].start(0));
      tick(rank);
    }
    while (!ended_ && !events_.empty()) {
      auto node = events_.extract(events_.begin());
      now_ = node.key();
      REQUIRE(++handled_ < 1'000'000);  // or the protocol does not move on
      node.mapped()();
    }
    CHECK(ended_);
    for (const MemberRole& member : members_) CHECK(member.step() == end_step());
    for (int64_t step = 0; step < end_step(); ++step) CHECK(run_[step] == SlotSet::first(plan_.slots(step)));
  }

  void stop_at(Microseconds when) {
    at(when, [this] { apply(coordinator_.stop()); });
  }
  int64_t end_step() const { return coordinator_.end_step(); }

 private:
  void at(Microseconds when, std::function<void()> event) { events_.emplace(when, std::move(event)); }

  // Up to 30 ms late, in any order, one in eight twice.
  void deliver(std::function<void()> event) {
    at(now_ + Microseconds(random_() % 30'000), event);
    if (random_() % 8 == 0) at(now_ + Microseconds(random_() % 300'000), event);
  }

  void tick(Rank rank) {
    apply(rank, members_[rank].on_tick(now_));
    at(now_ + 10'000, [this, rank] { tick(rank); });
  }

  void apply(CoordinatorActions actions) {
    REQUIRE(pick<Failure>(actions).empty());
    for (const SendGrant& send : pick<SendGrant>(actions)) {
      SlotSet& all = granted_[send.grant.fence.step];
      SlotSet& own = granted_to_[{send.grant.fence.step, send.to}];
      CHECK(all.disjoint(send.grant.slots - own));  // a slot goes to one member
      all = all | send.grant.slots;
      own = own | send.grant.slots;
      deliver([this, send] { apply(send.to, members_[send.to].on_grant(send.grant, now_)); });
    }
    for (const SendSeal& send : pick<SendSeal>(actions))
      for (Rank rank = 0; rank < members_.size(); ++rank)
        if (!send.to || *send.to == rank)
          deliver([this, rank, send] { apply(rank, members_[rank].on_seal(send.seal, now_)); });
    for (const AllCommitted& end : pick<AllCommitted>(actions)) {
      CHECK(end.digest == "x" + std::to_string(end.step));
      ended_ = true;
    }
  }

  void apply(Rank rank, MemberActions actions) {
    REQUIRE(pick<Failure>(actions).empty());
    for (const SendClaim& send : pick<SendClaim>(actions))
      deliver([this, rank, send] { apply(coordinator_.on_claim(rank, send.claim, now_)); });
    for (const RunSlot& slot : pick<RunSlot>(actions)) start_slot(rank, slot);
    for (const StartReduce& reduce : pick<StartReduce>(actions)) start_reduce(rank, reduce.seal);
    for (const StartCommit& commit : pick<StartCommit>(actions))
      at(now_ + Microseconds(random_() % 5'000), [this, rank, commit] {
        const std::string digest = "x" + std::to_string(commit.step + 1);
        apply(rank, members_[rank].on_committed(commit.step, digest, now_));
      });
  }

  void start_slot(Rank rank, const RunSlot& slot) {
    CHECK_FALSE(run_[slot.step].contains(slot.slot));  // folded once, by one member
    run_[slot.step].insert(slot.slot);
    const Microseconds took = speed_[rank] / 2 + Microseconds(random_() % uint64_t(speed_[rank]));
    at(now_ + took, [this, rank, slot, took] {
      apply(rank, members_[rank].on_slot_done(slot.step, slot.slot, double(took) * 1e-6, 0, now_));
    });
  }

  // A ring ends when every member is in it; each then learns of it in its own time.
  void start_reduce(Rank rank, const Seal& seal) {
    auto& [seals, inside] = rings_[seal.fence.step];
    if (inside.empty()) seals = seal;
    CHECK(seals == seal);
    CHECK(inside.insert(rank).second);
    if (inside.size() < members_.size()) return;
    CHECK(run_[seal.fence.step] == SlotSet::first(plan_.slots(seal.fence.step)));
    for (Rank each = 0; each < members_.size(); ++each)
      at(now_ + Microseconds(random_() % 10'000),
         [this, each, step = seal.fence.step] { apply(each, members_[each].on_reduced(step)); });
  }

  std::mt19937_64 random_;
  SlotPlan plan_;
  Coordinator coordinator_;
  std::vector<MemberRole> members_;
  std::vector<Microseconds> speed_;
  std::multimap<Microseconds, std::function<void()>> events_;
  Microseconds now_ = 0;
  int handled_ = 0;
  bool ended_ = false;
  std::map<int64_t, SlotSet> granted_, run_;
  std::map<std::pair<int64_t, Rank>, SlotSet> granted_to_;
  std::map<int64_t, std::pair<Seal, std::set<Rank>>> rings_;
};

}  // namespace

TEST_CASE("every step is committed once by every member, whatever the network does to messages") {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const SlotPlan plan{.training = uint32_t(1 + random() % 20),
                        .evaluation = uint32_t(random() % 4),
                        .evaluate_every = int64_t(random() % 4),
                        .steps = int64_t(1 + random() % 8)};
    Simulation simulation(seed, uint32_t(1 + random() % 6), plan);
    simulation.run();
    CHECK(simulation.end_step() == plan.steps);
  }
}

TEST_CASE("a stop at any moment ends every member at the same step") {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed + 1'000);
    const SlotPlan plan{
        .training = uint32_t(1 + random() % 12), .evaluation = 0, .evaluate_every = 0, .steps = 50};
    Simulation simulation(seed, uint32_t(1 + random() % 5), plan);
    simulation.stop_at(Microseconds(random() % 400'000));
    simulation.run();
    CHECK(simulation.end_step() < 50);
  }
}
