// From the inventories of a ballot to its view.
#include <algorithm>

#include "scheduler/membership.hpp"

namespace troupe::scheduler {

MembershipActions Membership::form(Microseconds now_us) {
  if (auto failure = compare_states()) return {*failure};
  const auto& answers = attempt_->answers;
  View view;
  view.ballot = promised_;
  for (const auto& [rank, answer] : answers) view.step = std::max(view.step, answer.step);
  const std::set<Rank> chosen = choose_members(view.step, now_us);
  if (chosen.empty()) {  // and this node, which has answered, wants to leave as well
    // Who was a member and has not answered may be out of reach for a moment only, and go on.
    const bool waits = now_us - attempt_->began_at_us < options_.prepare_patience_us;
    const std::set<Rank> missing = missing_members();
    if (std::any_of(missing.begin(), missing.end(), [&](Rank peer) {
          return up_.contains(peer) && !attempt_->asked.contains(peer) && !paused(barred_, peer, now_us);
        }))
      return prepare(now_us);
    if (waits && !missing.empty()) return {};
    attempt_.reset();
    everyone_left_ = true;
    return {EveryoneLeft{}};
  }
  if (options_.quorum && !has_quorum()) {
    // Too few. Whoever can be reached is asked again, after a while.
    if (now_us - attempt_->began_at_us < options_.prepare_patience_us) return {};
    return prepare(now_us);
  }
  for (const auto& [rank, answer] : answers) {
    if (chosen.contains(rank))
      late_.erase(rank);
    else if (answer.step + 1 == view.step && !answer.leaving)
      lengthen(late_[rank], 2 * options_.patience_us, now_us);
  }
  std::vector<Rank> by_size;
  for (Rank rank : chosen) {
    const Inventory& answer = answers.at(rank);
    view.members.push_back(answer.member);
    if (answer.end_step) view.end_step = std::min(*answer.end_step, view.end_step.value_or(*answer.end_step));
    if (answer.step == view.step) by_size.push_back(rank);
    if (answer.step == view.step && answer.holds_total && !view.total_source) view.total_source = rank;
  }
  if (by_size.size() == chosen.size()) view.total_source.reset();
  std::stable_sort(by_size.begin(), by_size.end(), [&](Rank a, Rank b) {
    return (answers.at(a).folded | answers.at(a).half_folded).count() >
           (answers.at(b).folded | answers.at(b).half_folded).count();
  });
  SlotSet covered;
  for (Rank rank : by_size) {
    const SlotSet held = answers.at(rank).folded | answers.at(rank).half_folded;
    if (held.empty() || !covered.disjoint(held)) continue;
    covered = covered | held;
    view.kept[rank] = held;
  }
  return announce(std::move(view), now_us);
}

// Of the last view, in the attempt.
std::set<Rank> Membership::missing_members() const {
  std::set<Rank> missing;
  if (view_)
    for (const Member& member : view_->members)
      if (!attempt_->answers.contains(member.rank)) missing.insert(member.rank);
  return missing;
}

// Guests have no vote: how many there could be says nothing of how many there are.
bool Membership::has_quorum() const {
  const auto votes =
      std::count_if(attempt_->answers.begin(), attempt_->answers.end(),
                    [&](const auto& answer) { return !options_.guests.contains(answer.first); });
  return 2 * size_t(votes) > options_.nodes.size() - options_.guests.size();
}

// Whoever has the newest state, or lacks one total that another member has. Of a pair whose link is broken,
// one.
std::set<Rank> Membership::choose_members(int64_t step, Microseconds now_us) {
  std::set<Rank> chosen, behind;
  std::optional<Rank> source, leaving_source;
  for (const auto& [rank, answer] : attempt_->answers) {
    if (answer.step == step - 1 && !answer.leaving) behind.insert(rank);
    if (answer.step != step) continue;
    if (!answer.leaving) chosen.insert(rank);
    if (answer.holds_total) (answer.leaving ? leaving_source : source) = rank;
  }
  if (!behind.empty() && !source && leaving_source) {
    chosen.insert(*leaving_source);
    source = leaving_source;
  }
  if (source) chosen.insert(behind.begin(), behind.end());
  // Nobody is left who has the state: those who want to leave stay until somebody else has it.
  const bool all_leave = std::all_of(attempt_->answers.begin(), attempt_->answers.end(),
                                     [](const auto& answer) { return answer.second.leaving; });
  if (chosen.empty() && !all_leave)
    for (const auto& [rank, answer] : attempt_->answers)
      if (answer.step == step) chosen.insert(rank);
  if (attempt_->stuck && chosen.contains(*attempt_->stuck) && !needed(*attempt_->stuck, step, chosen)) {
    lengthen(barred_[*attempt_->stuck], options_.pause_us, now_us);
    chosen.erase(*attempt_->stuck);
  }
  if (attempt_->broken_pair) separate(*attempt_->broken_pair, step, chosen, now_us);
  return chosen;
}

// Whether the others could not go on without `out`.
bool Membership::needed(Rank out, int64_t step, const std::set<Rank>& chosen) const {
  bool state = false, behind = false, total = false;
  for (Rank rank : chosen) {
    if (rank == out) continue;
    const Inventory& answer = attempt_->answers.at(rank);
    state = state || answer.step == step;
    behind = behind || answer.step < step;
    total = total || (answer.step == step && answer.holds_total);
  }
  return !state || (behind && !total);
}

// Leaves out one of two members whose link is broken: the higher rank, or the lower where the higher is this
// node or the others cannot go on without it.
void Membership::separate(const std::pair<Rank, Rank>& pair, int64_t step, std::set<Rank>& chosen,
                          Microseconds now_us) {
  if (!chosen.contains(pair.first) || !chosen.contains(pair.second)) return;
  Rank out = std::max(pair.first, pair.second), other = std::min(pair.first, pair.second);
  if (out == self() || needed(out, step, chosen)) std::swap(out, other);
  if (needed(out, step, chosen)) return;
  lengthen(barred_[out], options_.pause_us, now_us);
  chosen.erase(out);
}

void Membership::lengthen(Pause& pause, Microseconds first_us, Microseconds now_us) const {
  pause.length_us = pause.length_us == 0 ? first_us : std::min(2 * pause.length_us, options_.pause_max_us);
  pause.until_us = now_us + pause.length_us;
}

bool Membership::paused(const std::map<Rank, Pause>& pauses, Rank peer, Microseconds now_us) {
  const auto found = pauses.find(peer);
  return found != pauses.end() && now_us < found->second.until_us;
}

std::optional<Failure> Membership::compare_states() const {
  std::map<int64_t, std::pair<Rank, std::string>> digests;
  for (const auto& [rank, answer] : attempt_->answers) {
    const auto [first, fresh] = digests.try_emplace(answer.step, rank, answer.digest);
    if (fresh || first->second.second == answer.digest) continue;
    return Failure{Failure::Kind::numeric,
                   "the states of " + attempt_->answers.at(first->second.first).member.name + " and " +
                       answer.member.name + " differ before step " + std::to_string(answer.step) +
                       ": the same job gave different bits on the two nodes"};
  }
  return std::nullopt;
}

}  // namespace troupe::scheduler
