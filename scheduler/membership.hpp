// Who is in the cluster, who leads, and since when: the ballots and views of one node's side. Anything
// irregular (a lost link, a broken ring, a node that comes or goes) takes one path: a node prepares a higher
// ballot, the others promise it and say what they hold, and a view follows. Any node can prepare; the lowest
// live one of the last view does so first. A pure state machine: events and a clock in, actions out. Not
// thread-safe; owned by one actor.
//
// It follows single-decree Paxos (Lamport 1998) as far as promises go. Unlike there, two leaders at once are
// harmless: what they would disagree about, R(step), is the same bits whoever computes it. So a minority may
// go on as well, unless a quorum is asked for.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "scheduler/protocol.hpp"

namespace troupe::scheduler {

using MembershipMessage = std::variant<Prepare, Inventory, View, Heartbeat, Join, Follow, Suspect, Leave>;

struct SendTo {
  Rank to = 0;
  MembershipMessage message;
};
struct FenceMember {  // MemberRole::fence; its Fenced comes back as on_fenced
  Ballot ballot;
};
struct BeginView {  // MemberRole::begin; and, where this node leads it, a new Coordinator
  View view;
};
struct LeaveView {};  // MemberRole::leave_view; this node is in no view now
struct EndLead {};    // the Coordinator of an earlier ballot is void
struct FollowFrom {   // fetch a snapshot and the totals after it, until this node may join
  std::vector<Rank> sources;
  int64_t step = 0;
};
struct HasLeft {};       // a view without this node exists: it may end
struct EveryoneLeft {};  // all members want to leave at once: the job stops here
using MembershipAction = std::variant<SendTo, FenceMember, BeginView, LeaveView, EndLead, FollowFrom, HasLeft,
                                      EveryoneLeft, Failure>;
using MembershipActions = std::vector<MembershipAction>;

struct MembershipOptions {
  Member self;
  std::vector<Rank> nodes;      // all ranks that could ever be members, self among them
  std::vector<Rank> awaited{};  // before the first view, of those; empty: all
  // Higher than any ballot of an earlier process of this node, which is forgotten: a clock will do.
  uint64_t first_ballot = 1;
  std::set<Rank>
      guests{};         // of nodes, those that may never come: nobody waits for them, and they have no vote
  bool quorum = false;  // a view needs the promises of more than half of the other nodes
  Microseconds start_patience_us = 60'000'000;   // for all nodes, before the first view
  Microseconds patience_us = 3'000'000;          // for a leader to be heard
  Microseconds prepare_patience_us = 5'000'000;  // for inventories, and then for the view
  Microseconds repeat_us = 200'000;              // unanswered messages; signs of life
  Microseconds pause_us = 1'000'000;             // of a member with a broken link to another; doubles
  Microseconds pause_max_us = 60'000'000;
};

class Membership {
 public:
  // `step` is of the state that this node has. No node counts as up before on_peer_up.
  Membership(MembershipOptions options, int64_t step, Microseconds now_us);

  MembershipActions on_message(Rank from, const MembershipMessage& message, Microseconds now_us);
  MembershipActions on_peer_up(Rank peer, Microseconds now_us);
  MembershipActions on_peer_down(Rank peer, Microseconds now_us);
  // The ring or a fetch of this node failed at `peer`; self: it is not known at whom.
  MembershipActions on_broken(Rank peer, const std::string& why, Microseconds now_us);
  // The coordinator of this node's view finds that `peer` holds the others up.
  MembershipActions on_stuck(Rank peer, Microseconds now_us);
  MembershipActions on_fenced(const Inventory& inventory, Microseconds now_us);
  // A commit, or a state that came from a peer.
  MembershipActions on_step(int64_t step, bool wants_to_leave, Microseconds now_us);
  // The step that the view led by this node has come to.
  void on_view_step(int64_t step) { view_step_ = step; }
  // This node stood still for longer than its peers put up with: what it knows of them is out of date.
  void on_clock_jump(Microseconds now_us);
  MembershipActions on_tick(Microseconds now_us);  // at least every repeat_us

  bool leads() const { return mode_ == Mode::member && view_ && view_->ballot.leader == self(); }
  bool in_view() const { return mode_ == Mode::member; }
  bool preparing() const { return attempt_.has_value(); }
  const Ballot& promised() const { return promised_; }
  const std::optional<View>& view() const { return view_; }

 private:
  enum class Mode : uint8_t {
    seeking = 1,  // in no view
    promising,    // the member role has not answered yet
    promised,     // waits for the view
    member        // also a leader that is not a member of its own view
  };
  struct Attempt {  // to lead `promised_`
    std::set<Rank> asked;
    std::map<Rank, Inventory> answers;
    Microseconds began_at_us = 0;
    std::optional<std::pair<Rank, Rank>> broken_pair;
    std::optional<Rank> stuck;
  };
  struct Pause {
    Microseconds until_us = 0;
    Microseconds length_us = 0;
  };

  MembershipActions handle(Rank from, const Prepare& prepare, Microseconds now_us);
  MembershipActions handle(Rank from, const Inventory& inventory, Microseconds now_us);
  MembershipActions handle(Rank from, const View& view, Microseconds now_us);
  MembershipActions handle(Rank from, const Heartbeat& heartbeat, Microseconds now_us);
  MembershipActions handle(Rank from, const Join& join, Microseconds now_us);
  MembershipActions handle(Rank from, const Follow& follow, Microseconds now_us);
  MembershipActions handle(Rank from, const Suspect& suspect, Microseconds now_us);
  MembershipActions handle(Rank from, const Leave& leave, Microseconds now_us);

  MembershipActions prepare(Microseconds now_us);
  MembershipActions promise(const Ballot& ballot, Microseconds now_us);
  MembershipActions form_if_ready(Microseconds now_us);
  MembershipActions form(Microseconds now_us);
  std::set<Rank> choose_members(int64_t step, Microseconds now_us);
  bool has_quorum() const;
  std::set<Rank> missing_members() const;
  bool needed(Rank out, int64_t step, const std::set<Rank>& chosen) const;
  void separate(const std::pair<Rank, Rank>& pair, int64_t step, std::set<Rank>& chosen, Microseconds now_us);
  std::optional<Failure> compare_states() const;
  MembershipActions announce(View view, Microseconds now_us);
  MembershipActions enter(const View& view, Microseconds now_us);
  MembershipActions take_over_if_due(Microseconds now_us);
  MembershipActions repeat(Microseconds now_us);
  MembershipActions follow_members() const;
  bool all_are_here() const;
  void leader_lost(Microseconds now_us) { lost_since_us_ = lost_since_us_.value_or(now_us); }
  void look_for_leader(Microseconds now_us);
  void send_join(MembershipActions& actions) const;
  bool may_enter(Rank peer, int64_t step, Microseconds now_us) const;  // a view of this leader
  void lengthen(Pause& pause, Microseconds first_us, Microseconds now_us) const;
  static bool paused(const std::map<Rank, Pause>& pauses, Rank peer, Microseconds now_us);
  uint32_t live_below() const;  // how many nodes with a better claim to lead are up
  Rank self() const { return options_.self.rank; }
  Heartbeat heartbeat() const;
  Join join() const;

  MembershipOptions options_;
  Mode mode_ = Mode::seeking;
  int64_t step_ = 0;
  int64_t view_step_ = 0;
  Microseconds born_us_ = 0;
  bool wants_to_leave_ = false;
  Ballot promised_;
  std::optional<View> view_;            // the last one that named this node or was led by it
  std::optional<Inventory> inventory_;  // the answer to promised_
  std::optional<Attempt> attempt_;
  std::set<Rank> up_;
  std::set<Rank> awaited_;        // before the first view: all nodes but those that came and went
  std::map<Rank, Join> joins_;    // of nodes that are in no view, newest
  std::map<Rank, Pause> barred_;  // left out of a view, as the others could not work with them
  std::map<Rank, Pause> late_;    // a step behind when nobody had its total any more
  int64_t followed_to_ = 0;       // where the leader was when it told this node to follow
  std::optional<std::pair<Rank, std::string>> broken_;  // this node's own report, until a ballot answers it
  std::optional<Rank> leader_hint_;                     // who leads, as far as a node in no view knows
  Microseconds heard_leader_us_ = 0;
  Microseconds mode_since_us_ = 0;
  Microseconds repeated_at_us_ = 0;
  std::optional<Microseconds> lost_since_us_;  // since when there is no leader
  bool ever_in_view_ = false;
  bool everyone_left_ = false;  // it has said so, and ends when its last work is done
};

}  // namespace troupe::scheduler
