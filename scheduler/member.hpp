// A member's part of a step: COMPUTE (claim slots, run them) -> REDUCE (the ring adds up all contributions)
// -> COMMIT (apply the total once) -> COMPUTE of the next step. A pure state machine: events and a clock in,
// actions out. It never runs a slot it was not granted, never forwards a step before the one below is
// committed, and drops messages of other ballots and steps. Not thread-safe; owned by one actor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "scheduler/protocol.hpp"

namespace troupe::scheduler {

struct SendClaim {  // to the leader
  Claim claim;
};
struct PrefetchSlots {  // a hint: samples that this member will probably be asked for
  int64_t step = 0;
  std::vector<uint32_t> slots;
};
struct RunSlot {  // on a free worker
  int64_t step = 0;
  uint32_t slot = 0;
};
struct StartReduce {  // all own slots are folded: run the ring over these contributions
  Seal seal;
};
struct StartCommit {  // the total is whole: apply it
  int64_t step = 0;
};
using MemberAction = std::variant<SendClaim, PrefetchSlots, RunSlot, StartReduce, StartCommit, Failure>;
using MemberActions = std::vector<MemberAction>;

struct MemberOptions {
  Rank self = 0;
  uint32_t workers = 1;
  uint32_t lookahead = 1;            // granted slots kept waiting, so that workers never wait for an answer
  Microseconds repeat_us = 500'000;  // an unanswered claim is sent again
  Microseconds retry_us = 20'000;    // after "nothing now"
};

class MemberRole {
 public:
  enum class Phase : uint8_t { compute = 1, reduce, commit };

  // REQUIRES that `view` names self. `digest` is of the state before `step`.
  MemberRole(MemberOptions options, View view, SlotPlan plan, int64_t step, std::string digest);

  MemberActions start(Microseconds now_us);  // the first claim
  MemberActions on_grant(const Grant& grant, Microseconds now_us);
  MemberActions on_seal(const Seal& seal, Microseconds now_us);
  MemberActions on_slot_done(int64_t step, uint32_t slot, double seconds, uint32_t flags,
                             Microseconds now_us);
  MemberActions on_reduced(int64_t step);
  MemberActions on_committed(int64_t step, std::string digest, Microseconds now_us);
  // Repeats what was not answered. Call it at least every repeat_us / 2 or retry_us.
  MemberActions on_tick(Microseconds now_us);

  Phase phase() const { return phase_; }
  int64_t step() const { return step_; }
  const SlotSet& granted() const { return granted_; }
  const SlotSet& done() const { return done_; }
  double slot_seconds() const { return slot_seconds_; }

 private:
  void claim_if_useful(MemberActions& actions, Microseconds now_us);
  void run_waiting(MemberActions& actions);
  void reduce_if_whole(MemberActions& actions);
  bool is_current(const Fence& fence) const { return fence.ballot == view_.ballot && fence.step == step_; }
  uint32_t held() const { return uint32_t(waiting_.size()) + running_; }
  static Failure wrong(std::string message) { return {Failure::Kind::protocol, std::move(message)}; }

  MemberOptions options_;
  View view_;
  SlotPlan plan_;
  Phase phase_ = Phase::compute;
  int64_t step_ = 0;
  std::string digest_;
  SlotSet granted_, started_, done_;
  std::vector<uint32_t> waiting_;  // granted, not started; bounded by what was claimed
  uint32_t running_ = 0;
  uint32_t flags_ = 0;
  double slot_seconds_ = 0;
  uint64_t sequence_ = 0;
  std::optional<Claim> outstanding_;
  Microseconds claimed_at_us_ = 0;
  Microseconds claim_after_us_ = 0;
  std::optional<Seal> seal_;
};

}  // namespace troupe::scheduler
