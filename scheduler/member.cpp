#include "scheduler/member.hpp"

#include <algorithm>
#include <stdexcept>

namespace troupe::scheduler {

namespace {

constexpr double kSmoothing = 0.25;  // weight of the newest slot in the smoothed time of one

}  // namespace

MemberRole::MemberRole(MemberOptions options, SlotPlan plan, int64_t step, std::string digest)
    : options_(options), plan_(plan), step_(step), digest_(std::move(digest)) {
  if (options_.workers == 0) throw std::invalid_argument("a member needs a worker");
}

MemberActions MemberRole::begin(const View& view, Microseconds now_us) {
  if (!view.position(options_.self)) throw std::invalid_argument("a member is not in its own view");
  if (phase_ != Phase::idle && phase_ != Phase::fenced)
    return {wrong("a view began that no promise came before")};
  const bool behind = view.step == step_ + 1 && view.total_source.has_value();
  if (view.step != step_ && !behind)
    return {wrong("a view begins at step " + std::to_string(view.step) + ", but the state is of step " +
                  std::to_string(step_))};
  view_ = view;
  end_step_ = view.end_step;
  seal_.reset();
  outstanding_.reset();
  told_ = {};
  claim_after_us_ = 0;
  MemberActions actions;
  if (behind) {
    phase_ = Phase::fetch;
    total_whole_ = total_fetched_ = false;
    actions.emplace_back(FetchTotal{{view_.ballot, step_}, *view.total_source});
    return actions;
  }
  const auto kept = view.kept.find(options_.self);
  const SlotSet keep = kept == view.kept.end() ? SlotSet() : kept->second;
  if (!keep.empty() && keep != started_) return {wrong("a view keeps slots of a sum that holds others")};
  granted_ = started_;
  phase_ = keep == started_ ? Phase::compute : Phase::drain;
  if (phase_ == Phase::drain)
    clear_if_drained(actions);
  else
    claim_if_useful(actions, now_us);
  return actions;
}

MemberActions MemberRole::fence(const Ballot& ballot) {
  fence_ = ballot;
  MemberActions actions;
  switch (phase_) {
    case Phase::commit:
    case Phase::clear:
    case Phase::stopping:
      break;  // answered at its end
    case Phase::reduce:
      phase_ = Phase::stopping;
      actions.emplace_back(StopReduce{{view_.ballot, step_}});
      break;
    case Phase::fetch:
      actions.emplace_back(StopFetch{});
      [[fallthrough]];
    default:
      answer_fence(actions);
  }
  return actions;
}

void MemberRole::leave_view() {
  if (phase_ == Phase::fenced) phase_ = Phase::idle;
}

void MemberRole::restore(int64_t step, std::string digest) {
  if (running_ > 0 || (phase_ != Phase::idle && phase_ != Phase::fenced))
    throw std::logic_error("a state was replaced while it was in use");
  step_ = step;
  digest_ = std::move(digest);
  total_whole_ = false;
  forget_slots();
}

MemberActions MemberRole::on_grant(const Grant& grant, Microseconds now_us) {
  if (!is_current(grant.fence) || (phase_ != Phase::compute && phase_ != Phase::reduce)) return {};
  if (!outstanding_ || grant.sequence != outstanding_->sequence) return {};  // a late copy
  told_ = outstanding_->done;
  outstanding_.reset();
  if (phase_ == Phase::reduce) return {};
  if (grant.slots.empty()) claim_after_us_ = now_us + options_.retry_us;
  for (uint32_t slot : (grant.slots - granted_).to_vector()) waiting_.push_back(slot);
  granted_ = granted_ | grant.slots;
  MemberActions actions;
  run_waiting(actions);
  claim_if_useful(actions, now_us);
  return actions;
}

MemberActions MemberRole::on_seal(const Seal& seal, Microseconds now_us) {
  if (!is_current(seal.fence) || phase_ != Phase::compute || seal_) return {};
  SlotSet all, mine;
  for (const auto& [rank, slots] : seal.contributions) {
    if (!view_.position(rank)) return {wrong("a seal names a node that is not in the view")};
    if (!all.disjoint(slots)) return {wrong("a seal gives one slot to two nodes")};
    all = all | slots;
    if (rank == options_.self) mine = slots;
  }
  if (all != SlotSet::first(plan_.slots(step_)))
    return {wrong("a seal does not cover every slot of its step")};
  if (!(granted_ - mine).empty()) return {wrong("a seal takes back slots that were granted")};
  for (uint32_t slot : (mine - granted_).to_vector())
    waiting_.push_back(slot);  // its grant is still on the way
  granted_ = mine;
  seal_ = seal;
  if (seal.end_step) end_step_ = seal.end_step;
  outstanding_.reset();
  MemberActions actions;
  run_waiting(actions);
  reduce_if_whole(actions, now_us);
  if (phase_ == Phase::compute && view_.members.size() > 1) {
    total_whole_ = false;
    actions.emplace_back(FeedReduce{*seal_});
  }
  return actions;
}

MemberActions MemberRole::on_slot_done(int64_t step, uint32_t slot, double seconds, Microseconds now_us) {
  if (step != step_ || !started_.contains(slot) || done_.contains(slot))
    return {wrong("slot " + std::to_string(slot) + " ended that was not running")};
  done_.insert(slot);
  --running_;
  if (!plan_.is_evaluation(slot))
    slot_seconds_ = slot_seconds_ == 0 ? seconds : slot_seconds_ + kSmoothing * (seconds - slot_seconds_);
  MemberActions actions;
  if (phase_ == Phase::drain) clear_if_drained(actions);
  if (phase_ == Phase::fetch) commit_if_drained(actions);
  if (phase_ != Phase::compute) return actions;
  run_waiting(actions);
  claim_if_useful(actions, now_us);
  reduce_if_whole(actions, now_us);
  return actions;
}

MemberActions MemberRole::on_reduced(const Fence& fence) {
  if (!is_current(fence) || (phase_ != Phase::reduce && phase_ != Phase::stopping)) return {};
  phase_ = Phase::commit;
  return {StartCommit{step_}};
}

MemberActions MemberRole::on_reduce_failed(const Fence& fence) {
  MemberActions actions;
  if (!is_current(fence)) return actions;
  if (phase_ == Phase::reduce) phase_ = Phase::broken;
  if (phase_ == Phase::stopping) answer_fence(actions);
  return actions;
}

MemberActions MemberRole::on_total_fetched(const Fence& fence) {
  MemberActions actions;
  if (!is_current(fence) || phase_ != Phase::fetch) return actions;
  total_fetched_ = true;
  commit_if_drained(actions);
  return actions;
}

MemberActions MemberRole::on_fetch_failed(const Fence& fence) {
  if (is_current(fence) && phase_ == Phase::fetch) phase_ = Phase::broken;
  return {};
}

MemberActions MemberRole::on_committed(int64_t step, std::string digest, Microseconds now_us) {
  if (step != step_ || phase_ != Phase::commit) return {wrong("a step was committed out of turn")};
  ++step_;
  digest_ = std::move(digest);
  total_whole_ = true;
  return start_over(now_us);
}

MemberActions MemberRole::on_cleared(Microseconds now_us) {
  if (phase_ != Phase::clear) return {wrong("a sum was cleared that is in use")};
  return start_over(now_us);
}

MemberActions MemberRole::on_tick(Microseconds now_us) {
  MemberActions actions;
  if (phase_ != Phase::compute && phase_ != Phase::reduce) return actions;
  if (outstanding_ && now_us - claimed_at_us_ >= options_.repeat_us) {
    claimed_at_us_ = now_us;
    actions.emplace_back(SendClaim{*outstanding_});
  }
  claim_if_useful(actions, now_us);
  return actions;
}

// Nothing is folded, nothing runs: claims, or answers the promise that waited for this.
MemberActions MemberRole::start_over(Microseconds now_us) {
  forget_slots();
  phase_ = Phase::compute;
  MemberActions actions;
  if (fence_)
    answer_fence(actions);
  else
    claim_if_useful(actions, now_us);
  return actions;
}

void MemberRole::forget_slots() {
  granted_ = started_ = done_ = told_ = SlotSet();
  waiting_.clear();
  seal_.reset();
  outstanding_.reset();
  claim_after_us_ = 0;
  total_fetched_ = false;
}

// What was granted and not started goes back; what runs will be in the sum.
void MemberRole::answer_fence(MemberActions& actions) {
  phase_ = Phase::fenced;
  waiting_.clear();
  granted_ = started_;
  seal_.reset();
  outstanding_.reset();
  total_fetched_ = false;
  Inventory inventory;
  inventory.ballot = *fence_;
  inventory.step = step_;
  inventory.digest = digest_;
  inventory.folded = done_;
  inventory.half_folded = started_ - done_;
  inventory.holds_total = total_whole_;
  inventory.leaving = wants_to_leave();
  inventory.end_step = end_step_;
  fence_.reset();
  actions.emplace_back(Fenced{std::move(inventory)});
}

void MemberRole::commit_if_drained(MemberActions& actions) {
  if (!total_fetched_ || running_ > 0) return;
  phase_ = Phase::commit;
  actions.emplace_back(StartCommit{step_});
}

void MemberRole::clear_if_drained(MemberActions& actions) {
  if (running_ > 0) return;
  phase_ = Phase::clear;
  actions.emplace_back(ClearSum{});
}

// Asks for as many slots as keep every worker busy and `lookahead` waiting. One claim is on its way at a
// time. At the end of the job the claim says that the last step is committed, and wants nothing.
void MemberRole::claim_if_useful(MemberActions& actions, Microseconds now_us) {
  if (phase_ != Phase::compute || seal_ || outstanding_ || now_us < claim_after_us_) return;
  const uint32_t room = options_.workers + options_.lookahead;
  if (held() >= room) return;
  claim(actions, step_ < plan_.steps && !wants_to_leave() ? std::min(room - held(), kSlotsMax) : 0, now_us);
}

void MemberRole::claim(MemberActions& actions, uint32_t wanted, Microseconds now_us) {
  Claim claim;
  claim.fence = {view_.ballot, step_};
  claim.sequence = ++sequence_;
  claim.done = done_;
  claim.wanted = wanted;
  claim.workers = options_.workers;
  claim.digest = digest_;
  claim.slot_seconds = slot_seconds_;
  claim.sealed = seal_.has_value();
  outstanding_ = claim;
  claimed_at_us_ = now_us;
  actions.emplace_back(SendClaim{std::move(claim)});
}

void MemberRole::run_waiting(MemberActions& actions) {
  std::sort(waiting_.begin(), waiting_.end());
  while (running_ < options_.workers && !waiting_.empty()) {
    const uint32_t slot = waiting_.front();
    waiting_.erase(waiting_.begin());
    started_.insert(slot);
    ++running_;
    actions.emplace_back(RunSlot{step_, slot});
  }
  if (!waiting_.empty()) actions.emplace_back(PrefetchSlots{step_, waiting_});
}

void MemberRole::reduce_if_whole(MemberActions& actions, Microseconds now_us) {
  if (phase_ != Phase::compute || !seal_ || done_ != granted_) return;
  phase_ = Phase::reduce;
  // The leader would take a member whose slots are open for one that stands still, however long the ring
  // takes.
  if (told_ != done_) claim(actions, 0, now_us);
  // Slots go to those who had them before, so the first of this step are a good guess at the first of the
  // next.
  if (step_ + 1 < plan_.steps) {
    PrefetchSlots next{step_ + 1, {}};
    for (uint32_t slot : granted_.to_vector())
      if (!plan_.is_evaluation(slot) && next.slots.size() < options_.workers + options_.lookahead)
        next.slots.push_back(slot);
    if (!next.slots.empty()) actions.emplace_back(std::move(next));
  }
  actions.emplace_back(StartReduce{*seal_});
}

}  // namespace troupe::scheduler
