#include "scheduler/membership.hpp"

#include <algorithm>

namespace troupe::scheduler {

Membership::Membership(MembershipOptions options, int64_t step, Microseconds now_us)
    : options_(std::move(options)),
      step_(step),
      view_step_(step),
      born_us_(now_us),
      heard_leader_us_(now_us),
      mode_since_us_(now_us),
      repeated_at_us_(now_us) {
  for (Rank rank : options_.awaited.empty() ? options_.nodes : options_.awaited)
    if (rank != self()) awaited_.insert(rank);
}

MembershipActions Membership::on_message(Rank from, const MembershipMessage& message, Microseconds now_us) {
  return std::visit([&](const auto& one) { return handle(from, one, now_us); }, message);
}

// --- preparing and forming ---

MembershipActions Membership::prepare(Microseconds now_us) {
  MembershipActions actions;
  if (leads()) actions.emplace_back(EndLead{});
  promised_ = {std::max(promised_.number + 1, options_.first_ballot), self()};
  mode_ = Mode::promising;
  mode_since_us_ = now_us;
  inventory_.reset();
  broken_.reset();
  lost_since_us_.reset();
  attempt_.emplace();
  attempt_->began_at_us = now_us;
  attempt_->asked.insert(self());
  for (Rank peer : up_)
    if (!paused(barred_, peer, now_us)) attempt_->asked.insert(peer);
  for (Rank peer : attempt_->asked)
    if (peer != self()) actions.emplace_back(SendTo{peer, Prepare{promised_}});
  actions.emplace_back(FenceMember{promised_});
  return actions;
}

MembershipActions Membership::handle(Rank from, const Prepare& prepare, Microseconds now_us) {
  if (prepare.ballot.leader != from) return {};
  if (prepare.ballot < promised_) return {SendTo{from, heartbeat()}};
  if (prepare.ballot == promised_) {
    if (inventory_ && mode_ == Mode::promised) return {SendTo{from, *inventory_}};
    return {};
  }
  return promise(prepare.ballot, now_us);
}

MembershipActions Membership::promise(const Ballot& ballot, Microseconds now_us) {
  MembershipActions actions;
  if (leads()) actions.emplace_back(EndLead{});
  promised_ = ballot;
  mode_ = Mode::promising;
  mode_since_us_ = heard_leader_us_ = now_us;
  leader_hint_ = ballot.leader;
  everyone_left_ = false;
  attempt_.reset();
  inventory_.reset();
  broken_.reset();
  lost_since_us_.reset();
  actions.emplace_back(FenceMember{promised_});
  return actions;
}

MembershipActions Membership::on_fenced(const Inventory& inventory, Microseconds now_us) {
  if (inventory.ballot != promised_ || mode_ != Mode::promising) return {};
  inventory_ = inventory;
  inventory_->member = options_.self;
  step_ = inventory.step;
  mode_ = Mode::promised;
  mode_since_us_ = now_us;
  if (attempt_) return handle(self(), *inventory_, now_us);
  return {SendTo{promised_.leader, *inventory_}};
}

MembershipActions Membership::handle(Rank from, const Inventory& inventory, Microseconds now_us) {
  if (inventory.ballot != promised_) return {};
  if (leads()) return {SendTo{from, *view_}};  // it has not got the view
  if (!attempt_ || !attempt_->asked.contains(from)) return {};
  attempt_->answers[from] = inventory;
  return form_if_ready(now_us);
}

MembershipActions Membership::form_if_ready(Microseconds now_us) {
  if (!attempt_ || !inventory_) return {};
  const bool patient = now_us - attempt_->began_at_us < options_.prepare_patience_us;
  for (Rank peer : attempt_->asked)
    if (patient && !attempt_->answers.contains(peer)) return {};
  return form(now_us);
}

MembershipActions Membership::announce(View view, Microseconds now_us) {
  MembershipActions actions;
  for (const auto& [rank, answer] : attempt_->answers) {
    if (rank == self()) continue;
    actions.emplace_back(SendTo{rank, view});
    joins_.erase(rank);
  }
  attempt_.reset();
  view_step_ = view.step;
  append(actions, enter(view, now_us));
  return actions;
}

// The view of the promised ballot.
MembershipActions Membership::enter(const View& view, Microseconds now_us) {
  MembershipActions actions;
  const auto place = view.position(self());
  // An earlier process of this node may be named: that is not this one.
  const bool named = place && view.members[*place].incarnation == options_.self.incarnation;
  const bool lead = view.ballot.leader == self();
  mode_since_us_ = heard_leader_us_ = now_us;
  lost_since_us_.reset();
  inventory_.reset();
  ever_in_view_ = true;
  mode_ = named || lead ? Mode::member : Mode::seeking;
  if (named || lead) view_ = view;
  if (!named) actions.emplace_back(LeaveView{});
  if (named || lead) actions.emplace_back(BeginView{view});
  if (!named && wants_to_leave_) actions.emplace_back(HasLeft{});
  if (!named && lead && !wants_to_leave_) append(actions, follow_members());
  return actions;
}

// Of a leader that is too far behind to be a member of its own view.
MembershipActions Membership::follow_members() const {
  FollowFrom follow{{}, view_step_};
  for (const Member& member : view_->members) follow.sources.push_back(member.rank);
  return {std::move(follow)};
}

MembershipActions Membership::handle(Rank from, const View& view, Microseconds now_us) {
  if (view.ballot.leader != from || view.ballot < promised_) return {};
  if (view.ballot > promised_) return handle(from, Heartbeat{view.ballot, view.step, true}, now_us);
  if (mode_ != Mode::promised || !inventory_) return {};  // a copy
  MembershipActions actions = enter(view, now_us);
  if (mode_ == Mode::seeking && !wants_to_leave_) send_join(actions);
  return actions;
}

// --- who is there ---

MembershipActions Membership::on_peer_up(Rank peer, Microseconds) {
  up_.insert(peer);
  awaited_.insert(peer);
  MembershipActions actions;
  if (leads()) actions.emplace_back(SendTo{peer, heartbeat()});
  if (mode_ == Mode::seeking && !wants_to_leave_) actions.emplace_back(SendTo{peer, join()});
  return actions;
}

MembershipActions Membership::on_peer_down(Rank peer, Microseconds now_us) {
  up_.erase(peer);
  awaited_.erase(peer);
  joins_.erase(peer);
  if (leader_hint_ == peer) leader_hint_.reset();
  if (attempt_) {
    attempt_->asked.erase(peer);
    attempt_->answers.erase(peer);
    return form_if_ready(now_us);
  }
  if (leads()) return view_->position(peer) ? prepare(now_us) : MembershipActions{};
  const bool waits = mode_ == Mode::promising || mode_ == Mode::promised;
  if ((waits && promised_.leader == peer) || (mode_ == Mode::member && view_->ballot.leader == peer))
    leader_lost(now_us);
  return take_over_if_due(now_us);
}

MembershipActions Membership::handle(Rank from, const Heartbeat& other, Microseconds now_us) {
  if (other.ballot < promised_) {
    if (other.leads && mode_ != Mode::seeking) return {SendTo{from, heartbeat()}};
    return {};
  }
  MembershipActions actions;
  if (other.leads) {
    heard_leader_us_ = now_us;
    leader_hint_ = from;
  }
  if (other.ballot == promised_) {
    if (other.leads) lost_since_us_.reset();
    return actions;
  }
  // Somebody leads a ballot that this node has not promised. If they are far ahead, it gives up its own view:
  // it cannot catch up there by itself.
  if (other.leads && mode_ != Mode::seeking && other.step > step_ + 1 && up_.contains(from))
    return promise(other.ballot, now_us);
  // Else it asks to be a member there, and goes on here until it is asked for a promise.
  leader_hint_ = other.ballot.leader;
  if (up_.contains(other.ballot.leader))
    actions.emplace_back(SendTo{other.ballot.leader, Join{promised_, options_.self, step_}});
  return actions;
}

MembershipActions Membership::handle(Rank from, const Join& join, Microseconds now_us) {
  joins_[from] = join;
  if (attempt_) return {};  // it is answered when the view is there
  if (!leads()) {
    if (mode_ == Mode::seeking && !ever_in_view_) return {};
    return {SendTo{from, heartbeat()}};
  }
  const auto place = view_->position(from);
  const bool same = place && view_->members[*place].incarnation == join.member.incarnation;
  if (same && join.known < view_->ballot) return {};  // a late copy
  if (paused(barred_, from, now_us)) return {};
  if (place) return prepare(now_us);
  // Many who come one after another would let nobody work: a view commits a step first, if it can.
  const bool begun = view_step_ > view_->step || now_us - mode_since_us_ >= options_.patience_us;
  if (may_enter(from, join.step, now_us)) return begun ? prepare(now_us) : MembershipActions{};
  Follow follow{view_->ballot, view_step_, {}};
  for (const Member& member : view_->members) follow.sources.push_back(member.rank);
  return {SendTo{from, std::move(follow)}};
}

MembershipActions Membership::handle(Rank from, const Follow& follow, Microseconds now_us) {
  if (mode_ != Mode::seeking || follow.ballot < promised_ || follow.step <= step_) return {};
  leader_hint_ = from;
  heard_leader_us_ = now_us;
  followed_to_ = follow.step;
  return {FollowFrom{follow.sources, follow.step}};
}

// Who is a step behind needs its total, which may be gone once the next ring has begun. A view that could not
// take it for that reason cost everyone a ring: it is tried again after a pause alone, and the node follows
// meanwhile, until it has come as far.
bool Membership::may_enter(Rank peer, int64_t step, Microseconds now_us) const {
  return step >= view_step_ || (step + 1 == view_step_ && !paused(late_, peer, now_us));
}

MembershipActions Membership::handle(Rank from, const Suspect& suspect, Microseconds now_us) {
  if (!leads() || suspect.ballot != view_->ballot || !view_->position(suspect.peer) || !view_->position(from))
    return {};
  MembershipActions actions = prepare(now_us);
  if (suspect.peer != from) attempt_->broken_pair = {from, suspect.peer};
  return actions;
}

MembershipActions Membership::handle(Rank from, const Leave& leave, Microseconds now_us) {
  if (!leads() || leave.ballot != view_->ballot || !view_->position(from)) return {};
  return prepare(now_us);
}

MembershipActions Membership::on_broken(Rank peer, const std::string& why, Microseconds now_us) {
  if (mode_ != Mode::member || !view_->position(self())) return {};
  if (leads()) {
    MembershipActions actions = prepare(now_us);
    if (peer != self()) attempt_->broken_pair = {self(), peer};
    return actions;
  }
  broken_ = {peer, why};
  mode_since_us_ = now_us;
  return {SendTo{view_->ballot.leader, Suspect{view_->ballot, peer, why}}};
}

MembershipActions Membership::on_stuck(Rank peer, Microseconds now_us) {
  if (!leads() || peer == self() || !view_->position(peer)) return {};
  MembershipActions actions = prepare(now_us);
  attempt_->stuck = peer;
  return actions;
}

MembershipActions Membership::on_step(int64_t step, bool wants_to_leave, Microseconds now_us) {
  step_ = step;
  const bool first = wants_to_leave && !wants_to_leave_;
  wants_to_leave_ = wants_to_leave_ || wants_to_leave;
  if (first && mode_ == Mode::seeking) return {HasLeft{}};
  MembershipActions actions;
  if (mode_ == Mode::seeking && !wants_to_leave_ && step >= followed_to_)
    send_join(actions);  // while it is as far
  if (!wants_to_leave_ || mode_ != Mode::member) return actions;
  // Also when it has asked before: it had to stay for a step where others needed what it has.
  if (leads()) return prepare(now_us);
  return {SendTo{view_->ballot.leader, Leave{view_->ballot}}};
}

void Membership::on_clock_jump(Microseconds now_us) {
  heard_leader_us_ = mode_since_us_ = now_us;
  lost_since_us_.reset();
  if (attempt_) attempt_->began_at_us = now_us;
}

// --- time ---

MembershipActions Membership::on_tick(Microseconds now_us) {
  if (everyone_left_) return {};
  if (attempt_) {
    MembershipActions actions = form_if_ready(now_us);
    if (attempt_) append(actions, repeat(now_us));
    return actions;
  }
  look_for_leader(now_us);
  MembershipActions actions = take_over_if_due(now_us);
  if (actions.empty()) actions = repeat(now_us);
  return actions;
}

void Membership::look_for_leader(Microseconds now_us) {
  const bool unheard = now_us - heard_leader_us_ >= options_.patience_us;
  switch (mode_) {
    case Mode::promising:
      if (!attempt_ && unheard && !up_.contains(promised_.leader)) leader_lost(now_us);
      break;
    case Mode::promised:
      if (now_us - mode_since_us_ >= options_.prepare_patience_us) leader_lost(now_us);
      break;
    case Mode::member:
      if (leads()) break;
      if (unheard) leader_lost(now_us);
      if (broken_ && now_us - mode_since_us_ >= 2 * options_.patience_us) leader_lost(now_us);
      break;
    case Mode::seeking: {
      if (!unheard && ever_in_view_) break;
      const bool waited = ever_in_view_
                              ? now_us - mode_since_us_ >= options_.patience_us
                              : now_us - std::max(born_us_, heard_leader_us_) >= options_.start_patience_us;
      if (all_are_here() || waited) leader_lost(now_us);
      break;
    }
  }
}

// Nobody is left who might be in a view.
bool Membership::all_are_here() const {
  if (ever_in_view_)
    return std::all_of(options_.nodes.begin(), options_.nodes.end(), [&](Rank peer) {
      const bool absent_guest = options_.guests.contains(peer) && !up_.contains(peer);
      return peer == self() || joins_.contains(peer) || absent_guest;
    });
  return std::all_of(awaited_.begin(), awaited_.end(), [&](Rank peer) { return joins_.contains(peer); });
}

MembershipActions Membership::take_over_if_due(Microseconds now_us) {
  if (!lost_since_us_ || leads() || attempt_) return {};
  if (mode_ == Mode::promising) return {};  // the member role answers first: a commit under way ends
  if (now_us - *lost_since_us_ < Microseconds(live_below()) * options_.patience_us) return {};
  return prepare(now_us);
}

uint32_t Membership::live_below() const {
  uint32_t count = 0;
  for (Rank peer : up_) {
    if (peer >= self()) continue;
    const bool candidate =
        mode_ == Mode::seeking || !view_ ? joins_.contains(peer) : view_->position(peer).has_value();
    if (candidate && !(view_ && mode_ == Mode::member && peer == view_->ballot.leader)) ++count;
  }
  return count;
}

MembershipActions Membership::repeat(Microseconds now_us) {
  MembershipActions actions;
  if (now_us - repeated_at_us_ < options_.repeat_us) return actions;
  repeated_at_us_ = now_us;
  if (attempt_) {
    for (Rank peer : attempt_->asked)
      if (peer != self() && up_.contains(peer) && !attempt_->answers.contains(peer))
        actions.emplace_back(SendTo{peer, Prepare{promised_}});
    return actions;
  }
  if (leads()) {
    // It has stayed for others who need what it has, and they are gone.
    if (view_->position(self()) && wants_to_leave_ && up_.empty()) return prepare(now_us);
    for (Rank peer : up_) actions.emplace_back(SendTo{peer, heartbeat()});
    if (view_->position(self()) || wants_to_leave_) return actions;
    append(actions, may_enter(self(), step_, now_us) ? prepare(now_us) : follow_members());
    return actions;
  }
  if (mode_ == Mode::promised && inventory_) actions.emplace_back(SendTo{promised_.leader, *inventory_});
  if (mode_ == Mode::seeking && !wants_to_leave_) send_join(actions);
  if (mode_ != Mode::member) return actions;
  if (broken_)
    actions.emplace_back(
        SendTo{view_->ballot.leader, Suspect{view_->ballot, broken_->first, broken_->second}});
  if (wants_to_leave_) actions.emplace_back(SendTo{view_->ballot.leader, Leave{view_->ballot}});
  return actions;
}

// To the leader, if this node knows one; else to all: whoever leads answers, the others say who does.
void Membership::send_join(MembershipActions& actions) const {
  for (Rank peer : up_)
    if (!leader_hint_ || peer == *leader_hint_ || !up_.contains(*leader_hint_))
      actions.emplace_back(SendTo{peer, join()});
}

Join Membership::join() const {
  return {promised_, options_.self, step_};
}

Heartbeat Membership::heartbeat() const {
  return {promised_, step_, leads()};
}

}  // namespace troupe::scheduler
