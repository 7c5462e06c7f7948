// The leader's part of a step: it answers Claims with Grants, each slot to one member within a ballot, seals
// the step when every slot is granted, and moves on with the first Claim of the next step. A pure state
// machine: events and a clock in, actions out; the same events give the same actions. Not thread-safe; owned
// by one actor.
//
// Slots go to whoever will finish them first: a member gets no slot that the busy ones would have done
// sooner.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "scheduler/protocol.hpp"

namespace troupe::scheduler {

struct SendGrant {
  Rank to = 0;
  Grant grant;
};
struct SendSeal {
  std::optional<Rank> to;  // none: to all members
  Seal seal;
};
struct AllCommitted {  // every member has committed the last step and agrees on the digest
  int64_t step = 0;
  std::string digest;
};
struct MemberStuck {  // every slot is granted, and this member alone has made no headway for far too long
  Rank rank = 0;
};
using CoordinatorAction = std::variant<SendGrant, SendSeal, AllCommitted, MemberStuck, Failure>;
using CoordinatorActions = std::vector<CoordinatorAction>;

class Coordinator {
 public:
  // How long a member may hold the others up: `stuck_us`, or so many times what its slots should take.
  static constexpr double kStuckSlots = 10;

  // Begins at view.step; slots that the view keeps count as granted. The leader need not be a member.
  Coordinator(View view, SlotPlan plan, Microseconds now_us, Microseconds stuck_us = 10'000'000);

  CoordinatorActions on_claim(Rank from, const Claim& claim, Microseconds now_us);
  // Finds members that stand still. Call it every now and then.
  CoordinatorActions on_tick(Microseconds now_us);
  // Ends the job at the next boundary: after the current step, or before it when none of it was granted yet.
  CoordinatorActions stop();

  int64_t step() const { return step_; }
  int64_t end_step() const { return end_step_; }
  bool sealed() const { return sealed_; }
  const View& view() const { return view_; }

 private:
  struct MemberState {
    std::optional<Claim> claim;  // newest of this step
    Grant answer;                // to that claim
    SlotSet granted;
    SlotSet granted_before;  // in the step before: its samples may be at hand
    Microseconds claimed_at_us = 0;
    Microseconds progress_us = 0;  // when it last had more slots done, or was granted one
    double slot_seconds = 0;
    uint32_t workers = 1;
    bool committed = false;  // has claimed at end_step
  };

  void begin_step(int64_t step, Microseconds now_us);
  void keep_sums();
  CoordinatorActions answer(Rank from, const Claim& claim, Microseconds now_us);
  CoordinatorActions finish(Rank from, const Claim& claim);
  std::optional<Failure> check_digest(Rank from, const Claim& claim);
  SlotSet choose(Rank from, const Claim& claim, Microseconds now_us) const;
  uint32_t pick_slot(const MemberState& member, const SlotSet& taken) const;
  bool others_are_faster(Rank from, double finish_seconds, uint32_t remaining, Microseconds now_us) const;
  double expected_seconds(const MemberState& member) const;
  Seal seal() const;
  std::string name(Rank rank) const;

  View view_;
  SlotPlan plan_;
  Microseconds stuck_us_;
  Microseconds ticked_us_;
  int64_t step_ = 0;
  int64_t end_step_ = 0;
  SlotSet free_;  // of this step, not granted yet
  bool sealed_ = false;
  bool ended_ = false;
  std::optional<std::pair<Rank, std::string>> digest_;  // of x(step), and who said so first
  std::map<Rank, MemberState> members_;
};

}  // namespace troupe::scheduler
