// A member's part of a job: COMPUTE (claim slots, run them) -> REDUCE (the ring adds up all contributions) ->
// COMMIT (apply the total once) -> COMPUTE of the next step, from view to view. A promise to a higher ballot
// fences it: a commit under way ends, a ring is stopped, no slot is started until that ballot's view says
// whether its sum stays. A pure state machine: events and a clock in, actions out. It never runs a slot it
// was not granted, never forwards a step before the one below is committed, and drops messages of other
// ballots and steps. Not thread-safe; owned by one actor.
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
// A hint while the last own slots run: what they have folded may go into the ring, and R(step - 1) be
// overwritten. It has no answer; StartReduce of the same seal follows, or a fence.
struct FeedReduce {
  Seal seal;
};
struct StartReduce {  // all own slots are folded: run the ring over these contributions
  Seal seal;
};
struct StopReduce {  // answered by on_reduced or on_reduce_failed, whichever is true
  Fence fence;
};
struct StartCommit {  // the total is whole: apply it
  int64_t step = 0;
};
struct ClearSum {};  // forget what was folded: others compute those slots; answered by on_cleared
struct FetchTotal {  // R(step) is with this member; answered by on_total_fetched or on_fetch_failed
  Fence fence;       // its step is that of the total
  Rank source = 0;
};
struct StopFetch {};
struct Fenced {  // to the membership: the answer to a Prepare
  Inventory inventory;
};
using MemberAction = std::variant<SendClaim, PrefetchSlots, RunSlot, FeedReduce, StartReduce, StopReduce,
                                  StartCommit, ClearSum, FetchTotal, StopFetch, Fenced, Failure>;
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
  enum class Phase : uint8_t {
    idle = 1,  // in no view
    compute,
    reduce,
    stopping,  // a ring that must stop before the fence can be answered
    broken,    // the ring failed; the next view decides
    commit,
    fenced,  // has answered Prepare
    drain,   // its sum is dropped, but running slots still fold into it
    clear,   // nothing runs, and the sum is being cleared
    fetch    // R(step) comes from a peer
  };

  // `digest` is of the state before `step`.
  MemberRole(MemberOptions options, SlotPlan plan, int64_t step, std::string digest);

  // A view that names self, of the ballot that was promised last (or of any, when idle). REQUIRES view.step
  // is step(), or step() + 1 with a total source.
  MemberActions begin(const View& view, Microseconds now_us);
  // Promises `ballot`: answered by Fenced, at once or when a commit or ring under way has ended.
  MemberActions fence(const Ballot& ballot);
  // The view of the promised ballot does not name self.
  void leave_view();
  // A state that came from a peer. REQUIRES idle or fenced, and no slot running.
  void restore(int64_t step, std::string digest);
  // Does its part of this step, and takes no slot of the next.
  void leave() { leave_at_ = leave_at_.value_or(step_ + 1); }

  MemberActions on_grant(const Grant& grant, Microseconds now_us);
  MemberActions on_seal(const Seal& seal, Microseconds now_us);
  MemberActions on_slot_done(int64_t step, uint32_t slot, double seconds, Microseconds now_us);
  MemberActions on_reduced(const Fence& fence);
  MemberActions on_reduce_failed(const Fence& fence);
  MemberActions on_total_fetched(const Fence& fence);
  MemberActions on_fetch_failed(const Fence& fence);
  MemberActions on_committed(int64_t step, std::string digest, Microseconds now_us);
  MemberActions on_cleared(Microseconds now_us);
  // The ring has begun to write R(step) over R(step - 1).
  void on_total_overwritten() { total_whole_ = false; }
  // Repeats what was not answered. Call it at least every repeat_us / 2 or retry_us.
  MemberActions on_tick(Microseconds now_us);

  Phase phase() const { return phase_; }
  int64_t step() const { return step_; }
  const std::string& digest() const { return digest_; }
  const View& view() const { return view_; }
  const SlotSet& granted() const { return granted_; }
  const SlotSet& done() const { return done_; }
  uint32_t running() const { return running_; }
  double slot_seconds() const { return slot_seconds_; }
  bool holds_total() const { return total_whole_; }
  bool wants_to_leave() const { return leave_at_ && step_ >= *leave_at_; }  // nothing of its work is open

 private:
  void claim_if_useful(MemberActions& actions, Microseconds now_us);
  void claim(MemberActions& actions, uint32_t wanted, Microseconds now_us);
  void run_waiting(MemberActions& actions);
  void reduce_if_whole(MemberActions& actions, Microseconds now_us);
  void commit_if_drained(MemberActions& actions);
  void clear_if_drained(MemberActions& actions);
  void answer_fence(MemberActions& actions);
  MemberActions start_over(Microseconds now_us);
  void forget_slots();
  bool is_current(const Fence& fence) const { return fence.ballot == view_.ballot && fence.step == step_; }
  uint32_t held() const { return uint32_t(waiting_.size()) + running_; }
  static Failure wrong(std::string message) { return {Failure::Kind::protocol, std::move(message)}; }

  MemberOptions options_;
  View view_;
  SlotPlan plan_;
  Phase phase_ = Phase::idle;
  int64_t step_ = 0;
  std::string digest_;
  SlotSet granted_, started_, done_;
  SlotSet told_;                   // of done_, what the leader knows: it has answered
  std::vector<uint32_t> waiting_;  // granted, not started; bounded by what was claimed
  uint32_t running_ = 0;
  double slot_seconds_ = 0;
  uint64_t sequence_ = 0;
  std::optional<Claim> outstanding_;
  Microseconds claimed_at_us_ = 0;
  Microseconds claim_after_us_ = 0;
  std::optional<Seal> seal_;
  std::optional<Ballot> fence_;  // promised, not answered
  std::optional<int64_t> end_step_;
  bool total_whole_ = false;    // R(step - 1) is here
  bool total_fetched_ = false;  // R(step) is here, and waits for running slots
  std::optional<int64_t> leave_at_;
};

}  // namespace troupe::scheduler
