#include "scheduler/coordinator.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace troupe::scheduler {

namespace {

constexpr double kMicro = 1e-6;
constexpr double kClearlySooner = 0.9;  // of the claimant's own finish; equals never wait for one another

}  // namespace

Coordinator::Coordinator(View view, SlotPlan plan, Microseconds now_us, Microseconds stuck_us)
    : view_(std::move(view)),
      plan_(plan),
      stuck_us_(stuck_us),
      ticked_us_(now_us),
      end_step_(std::min(plan.steps, view_.end_step.value_or(plan.steps))) {
  if (view_.members.empty()) throw std::invalid_argument("a view needs a member");
  for (const Member& member : view_.members) members_[member.rank];
  begin_step(view_.step, now_us);
  keep_sums();
}

void Coordinator::keep_sums() {
  if (step_ >= end_step_) return;
  for (const auto& [rank, slots] : view_.kept) {
    if (!members_.contains(rank)) throw std::invalid_argument("a view keeps the sum of a node outside it");
    if (!(slots - free_).empty()) throw std::invalid_argument("a view keeps one slot twice");
    members_[rank].granted = slots;
    free_ = free_ - slots;
  }
  sealed_ = free_.empty();
}

CoordinatorActions Coordinator::on_claim(Rank from, const Claim& claim, Microseconds now_us) {
  if (ended_ || claim.fence.ballot != view_.ballot || !members_.contains(from)) return {};
  if (claim.fence.step < step_) return {};  // a late copy
  if (claim.fence.step > step_) {
    if (claim.fence.step != step_ + 1 || !sealed_)
      return {Failure{Failure::Kind::protocol, name(from) + " claims slots of step " +
                                                   std::to_string(claim.fence.step) + " while step " +
                                                   std::to_string(step_) + " is not sealed"}};
    begin_step(claim.fence.step, now_us);
  }
  if (auto failure = check_digest(from, claim)) return {*failure};
  return step_ >= end_step_ ? finish(from, claim) : answer(from, claim, now_us);
}

CoordinatorActions Coordinator::stop() {
  bool granted = false;
  for (const auto& [rank, member] : members_) granted = granted || !member.granted.empty();
  end_step_ = std::min(end_step_, granted ? step_ + 1 : step_);
  if (step_ < end_step_) return {};
  // Nobody holds a slot of this step: those who claimed one are waiting at the boundary already.
  CoordinatorActions actions;
  for (auto& [rank, member] : members_)
    if (member.claim && !ended_) append(actions, finish(rank, *member.claim));
  return actions;
}

void Coordinator::begin_step(int64_t step, Microseconds now_us) {
  step_ = step;
  sealed_ = false;
  digest_.reset();
  free_ = step < end_step_ ? SlotSet::first(plan_.slots(step)) : SlotSet();
  for (auto& [rank, member] : members_) {
    member.claim.reset();
    member.granted_before = std::exchange(member.granted, SlotSet());
    member.claimed_at_us = now_us;
    member.progress_us = now_us;
  }
}

// A member claims again with each slot that it has done, so one of which nothing is heard computes. It is
// stuck when the others have nothing left to do meanwhile, and it takes many times as long as they would.
CoordinatorActions Coordinator::on_tick(Microseconds now_us) {
  // Stood still itself: what they have said meanwhile is still to be read.
  if (now_us - std::exchange(ticked_us_, now_us) > stuck_us_ / 2)
    for (auto& [rank, member] : members_) member.progress_us = now_us;
  if (!sealed_ || ended_ || step_ >= end_step_) return {};
  std::optional<Rank> stuck;
  for (const auto& [rank, member] : members_) {
    const bool done = (member.granted - (member.claim ? member.claim->done : SlotSet())).empty();
    const double allowed_us = std::max(double(stuck_us_), kStuckSlots * expected_seconds(member) / kMicro);
    if (done || double(now_us - member.progress_us) < allowed_us) continue;
    if (stuck) return {};  // two at once: rather the machine than they
    stuck = rank;
  }
  if (!stuck || members_.size() == 1) return {};
  members_[*stuck].progress_us = now_us;  // said once a while
  return {MemberStuck{*stuck}};
}

std::optional<Failure> Coordinator::check_digest(Rank from, const Claim& claim) {
  if (!digest_) digest_ = {from, claim.digest};
  if (digest_->second == claim.digest) return std::nullopt;
  return Failure{Failure::Kind::numeric, "the states of " + name(digest_->first) + " and " + name(from) +
                                             " differ before step " + std::to_string(step_) +
                                             ": the same job gave different bits on the two nodes"};
}

CoordinatorActions Coordinator::answer(Rank from, const Claim& claim, Microseconds now_us) {
  MemberState& member = members_[from];
  if (member.claim && claim.sequence < member.claim->sequence) return {};
  CoordinatorActions actions;
  const bool repeated = member.claim && claim.sequence == member.claim->sequence;
  const bool sealed_before = sealed_;
  if (!repeated) {
    if (!(claim.done - member.granted).empty())
      return {Failure{Failure::Kind::protocol, name(from) + " reports slots that it was not granted"}};
    if (!member.claim || claim.done != member.claim->done) member.progress_us = now_us;
    member.claim = claim;
    member.claimed_at_us = now_us;
    member.workers = std::max(1u, claim.workers);
    if (claim.slot_seconds > 0) member.slot_seconds = claim.slot_seconds;
    member.answer = Grant{{view_.ballot, step_}, claim.sequence, choose(from, claim, now_us)};
    if (!member.answer.slots.empty()) member.progress_us = now_us;
    member.granted = member.granted | member.answer.slots;
    free_ = free_ - member.answer.slots;
    sealed_ = free_.empty();
  }
  actions.emplace_back(SendGrant{from, member.answer});
  if (sealed_ && !sealed_before) actions.emplace_back(SendSeal{std::nullopt, seal()});
  if (sealed_before && !claim.sealed) actions.emplace_back(SendSeal{from, seal()});
  return actions;
}

CoordinatorActions Coordinator::finish(Rank from, const Claim& claim) {
  members_[from].committed = true;
  const bool all =
      std::all_of(members_.begin(), members_.end(), [](const auto& m) { return m.second.committed; });
  if (all) ended_ = true;
  if (all) return {AllCommitted{step_, claim.digest}};
  return {SendGrant{from, Grant{{view_.ballot, step_}, claim.sequence, {}}}};
}

SlotSet Coordinator::choose(Rank from, const Claim& claim, Microseconds now_us) const {
  const MemberState& member = members_.at(from);
  const double seconds = expected_seconds(member);
  SlotSet chosen;
  uint32_t backlog = (member.granted - claim.done).count();
  for (uint32_t i = 0; i < claim.wanted; ++i, ++backlog) {
    const uint32_t remaining = free_.count() - chosen.count();
    if (remaining == 0) break;
    const double finish_seconds = double(backlog / member.workers + 1) * seconds;
    if (others_are_faster(from, finish_seconds, remaining, now_us)) break;
    chosen.insert(pick_slot(member, chosen));
  }
  return chosen;
}

uint32_t Coordinator::pick_slot(const MemberState& member, const SlotSet& taken) const {
  const SlotSet available = free_ - taken;
  SlotSet unclaimed = available;
  for (const auto& [rank, other] : members_) unclaimed = unclaimed - other.granted_before;
  const SlotSet usual = available - (available - member.granted_before);
  if (auto slot = usual.lowest()) return *slot;
  if (auto slot = unclaimed.lowest()) return *slot;
  return *available.lowest();
}

// Would the others, busy or just beginning, take on all remaining slots and still end well before
// finish_seconds?
bool Coordinator::others_are_faster(Rank from, double finish_seconds, uint32_t remaining,
                                    Microseconds now_us) const {
  uint32_t done_sooner = 0;
  for (const auto& [rank, other] : members_) {
    if (rank == from) continue;
    const double seconds = expected_seconds(other);
    const double elapsed = double(now_us - other.claimed_at_us) * kMicro;
    const uint32_t backlog = other.claim ? (other.granted - other.claim->done).count() : 0;
    const double backlog_seconds = double(backlog + other.workers - 1) / other.workers * seconds;
    if (other.claim && backlog == 0) continue;          // idle by its own or our choice: do not wait for it
    if (elapsed > backlog_seconds + seconds) continue;  // late: do not count on it
    for (uint32_t extra = 0; done_sooner < remaining; ++extra, ++done_sooner) {
      const double end = double((backlog + extra) / other.workers + 1) * seconds - elapsed;
      if (end >= kClearlySooner * finish_seconds) break;
    }
  }
  return done_sooner >= remaining;
}

double Coordinator::expected_seconds(const MemberState& member) const {
  if (member.slot_seconds > 0) return member.slot_seconds;
  double sum = 0;
  int known = 0;
  for (const auto& [rank, other] : members_)
    if (other.slot_seconds > 0) sum += other.slot_seconds, ++known;
  return known > 0 ? sum / known : 1.0;
}

Seal Coordinator::seal() const {
  Seal result{{view_.ballot, step_}, {}, std::nullopt};
  if (end_step_ < plan_.steps) result.end_step = end_step_;
  for (const auto& [rank, member] : members_)
    if (!member.granted.empty()) result.contributions[rank] = member.granted;
  return result;
}

std::string Coordinator::name(Rank rank) const {
  const auto position = view_.position(rank);
  return position ? view_.members[*position].name : "rank " + std::to_string(rank);
}

}  // namespace troupe::scheduler
