#include "scheduler/membership.hpp"

#include <limits>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <openssl/rand.h>
#include <spdlog/spdlog.h>

#include "actors/clock.hpp"
#include "actors/guarded.hpp"
#include "actors/roles/roles.hpp"
#include "actors/wire.hpp"
#include "actors/wire_values.hpp"
#include "comm/link.hpp"
#include "kernels/base/hash.hpp"
#include "scheduler/fingerprint.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kTick{50};
constexpr scheduler::Microseconds kIntroduceAgainUs = 1'000'000;
constexpr scheduler::Microseconds kRepeatUs = 200'000;
constexpr scheduler::Microseconds kStartPatienceUs = 60'000'000;
constexpr scheduler::Microseconds kNeverUs = std::numeric_limits<scheduler::Microseconds>::max();

std::string one_time_key() {
  std::string key(32, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(key.data()), int(key.size())) != 1)
    throw error(ErrorKind::security, "the system gave no random numbers for the key of the bulk connections");
  return key;
}

struct membership_state {
  membership_state() = default;
  static inline const char* name = "membership";
  using Self = membership_actor::stateful_pointer<membership_state>;

  RoleSetup setup;
  MembershipPeers peers;
  std::optional<scheduler::Membership> decide;
  scheduler::Member own;
  std::string fingerprint, fingerprint_text;
  std::string no_beginning;  // why no job may begin at step 0 here
  std::set<scheduler::Rank> linked;
  std::map<scheduler::Rank, scheduler::Member> introduced;  // with the same fingerprint
  std::set<scheduler::Rank> turned_away;                    // linked, with another fingerprint
  scheduler::Ballot key_ballot;                             // of `key`
  std::string key;
  int64_t reached_step = 0;
  scheduler::Microseconds began_us = 0, ticked_us = 0, introduced_us = 0;

  void join(Self self, const JoinCluster& ready) {
    const NodeServices& node = *setup.context->services;
    // Each part that a process takes in a job is an incarnation of its own.
    own = {node.rank,
           node.node,
           node.bulk ? node.bulk->address() : "",
           comm::new_incarnation(),
           node.host_id,
           node.links->listen_address()};
    const auto hash = Sha256().update(ready.fingerprint_text).digest();
    fingerprint = {hash.begin(), hash.end()};
    fingerprint_text = ready.fingerprint_text;
    no_beginning = ready.broken;
    scheduler::MembershipOptions options;
    options.self = own;
    for (size_t i = 0; i < setup.context->cluster.nodes.size(); ++i) {
      options.nodes.push_back(scheduler::Rank(i));
      if (setup.context->cluster.nodes[i].guest) options.guests.insert(scheduler::Rank(i));
    }
    options.awaited = setup.context->awaited;
    options.first_ballot =
        uint64_t(std::chrono::system_clock::now().time_since_epoch() / std::chrono::microseconds(1));
    options.quorum = setup.context->cluster.quorum;
    options.start_patience_us = setup.context->elastic() ? kStartPatienceUs : kNeverUs;
    options.patience_us = patience_us();
    options.prepare_patience_us = patience_us() + 2'000'000;
    options.repeat_us = kRepeatUs;
    decide.emplace(std::move(options), ready.step, now_us());
    began_us = ticked_us = now_us();
    linked.insert(ready.linked.begin(), ready.linked.end());
    for (scheduler::Rank peer : linked) introduce(self, peer, false);
    tick(self);
  }

  scheduler::Microseconds patience_us() const { return setup.context->cluster.patience_ms * 1000; }

  // --- who is there ---

  void introduce(Self self, scheduler::Rank peer, bool reply) {
    const auto to = peers.members.find(peer);
    if (to == peers.members.end()) return;
    self->send(to->second,
               Post{own.rank, introduction(*setup.context, own, fingerprint, fingerprint_text, reply)});
  }

  // A sum of floats depends on who adds: all its members come before the first view, or the job ends.
  bool comes_too_late(scheduler::Rank peer) const {
    return !setup.context->elastic() && decide->view() && !decide->view()->position(peer);
  }

  void require_all(Self self) {
    if (setup.context->elastic() || decide->view() || now_us() - began_us < kStartPatienceUs) return;
    for (scheduler::Rank rank : setup.context->awaited)
      if (rank != own.rank && !linked.contains(rank))
        self->send(
            setup.supervisor,
            JobFailed{ErrorKind::timeout,
                      fmt::format("node {} has not come in {} s; with training.sum = \"float\" all nodes "
                                  "take part from the first step",
                                  setup.context->name_of(rank), kStartPatienceUs / 1'000'000),
                      -1});
  }

  // A full link drops a message, and who was not there yet has not heard it.
  void introduce_again(Self self, scheduler::Microseconds now) {
    introduced_us = now;
    for (scheduler::Rank peer : linked)
      if (!introduced.contains(peer) && !turned_away.contains(peer)) introduce(self, peer, false);
  }

  void on_introduction(Self self, scheduler::Rank from, const wire::Introduction& hello) {
    if (hello.fingerprint() != fingerprint) return differ(self, from, hello.fingerprint_text());
    if (!linked.contains(from)) return;
    const auto known = introduced.find(from);
    const bool same = known != introduced.end() && known->second.incarnation == hello.member().incarnation();
    if (!same && known != introduced.end()) apply(self, decide->on_peer_down(from, now_us()));
    introduced[from] = get(hello.member());
    if (!hello.reply()) introduce(self, from, true);
    if (same) return;
    bring_together(self, from);
    apply(self, decide->on_peer_up(from, now_us()));
  }

  // No cluster file says where a guest is: of two, the one that dials hears it from all who have met both,
  // and before any of them can ask it for a promise. So no two are left without each other when all others
  // die.
  void bring_together(Self self, scheduler::Rank newcomer) {
    const config::ClusterConfig& cluster = setup.context->cluster;
    if (!cluster.nodes[newcomer].guest) return;
    for (const auto& [other, member] : introduced) {
      if (other == newcomer || !cluster.nodes[other].guest) continue;
      const auto [dials, listens] = std::minmax(other, newcomer);
      self->send(peers.members.at(dials), Post{own.rank, guest_address(*setup.context, introduced[listens])});
    }
  }

  // Before the first view that is a mistake in how the job was started; later it is the newcomer's alone.
  void differ(Self self, scheduler::Rank peer, const std::string& theirs) {
    turned_away.insert(peer);
    const bool first = own.rank < peer;
    const std::string reference = setup.context->name_of(std::min(own.rank, peer)),
                      other = setup.context->name_of(std::max(own.rank, peer));
    const std::string why = fmt::format("node {} differs from {}: it has {}", other, reference,
                                        first ? scheduler::first_difference(fingerprint_text, theirs)
                                              : scheduler::first_difference(theirs, fingerprint_text));
    if (!decide->view())
      self->send(setup.supervisor, JobFailed{ErrorKind::version, why, -1});
    else
      spdlog::warn("turned away: {}", why);
  }

  // All that a member still needs then is the leader's word; others may have heard it and be gone.
  bool is_done() const {
    const JobContext& context = *setup.context;
    return reached_step >= context.job.steps || (context.stop_at > 0 && reached_step >= context.stop_at);
  }

  void unlinked(Self self, const PeerUnlinked& gone) {
    linked.erase(gone.peer);
    turned_away.erase(gone.peer);
    self->send(peers.follower, gone);
    if (introduced.erase(gone.peer) == 0 || !decide) return;
    const auto& view = decide->view();
    if (!setup.context->elastic()) {
      if (view && is_done() && gone.peer != view->ballot.leader && own.rank != view->ballot.leader) return;
      if (!view || view->position(gone.peer))
        self->send(setup.supervisor, JobFailed{ErrorKind::peer_lost, gone.why, int64_t(gone.peer)});
    }
    apply(self, decide->on_peer_down(gone.peer, now_us()));
  }

  // --- events ---

  void on_post(Self self, const Post& post) {
    if (!decide || !same_job(*setup.context, *post.envelope)) return;
    if (post.envelope->has_introduction())
      return on_introduction(self, post.from, post.envelope->introduction());
    if (!introduced.contains(post.from) || comes_too_late(post.from)) return;
    if (const auto message = membership_message_of(*post.envelope))
      apply(self, decide->on_message(post.from, *message, now_us()));
  }

  void tick(Self self) {
    const scheduler::Microseconds now = now_us();
    if (now - ticked_us > patience_us() / 2) {
      spdlog::warn("this process stood still for {:.1f} s", double(now - ticked_us) * 1e-6);
      decide->on_clock_jump(now);
    }
    ticked_us = now;
    if (now - introduced_us >= kIntroduceAgainUs) introduce_again(self, now);
    require_all(self);
    apply(self, decide->on_tick(now));
    self->delayed_send(self, kTick, Tick{});
  }

  void broken(Self self, const RingBroken& ring) {
    if (!decide->view() || ring.ballot != decide->view()->ballot) return;
    spdlog::warn("{}", ring.why);
    apply(self, decide->on_broken(ring.peer, ring.why, now_us()));
  }

  // --- what is decided ---

  void apply(Self self, scheduler::MembershipActions actions) {
    for (auto& action : actions) std::visit([&](auto& one) { perform(self, one); }, action);
  }

  // The leader's secret for the ring of its view.
  void give_key(scheduler::View& view) {
    if (view.ballot.leader != own.rank) return;
    if (view.ballot != key_ballot) key = one_time_key();
    key_ballot = view.ballot;
    view.bulk_key = key;
  }

  void perform(Self self, scheduler::SendTo& send) {
    if (auto* view = std::get_if<scheduler::View>(&send.message)) give_key(*view);
    self->send(peers.members.at(send.to), Post{own.rank, to_wire(*setup.context, send.message)});
  }
  void perform(Self self, scheduler::FenceMember& fence) { self->send(peers.member, fence); }
  void perform(Self self, scheduler::LeaveView& leave) {
    int64_t speaks = own.rank;
    setup.context->speaker->compare_exchange_strong(speaks, -1);
    self->send(peers.member, leave);
  }
  void perform(Self self, scheduler::EndLead& end) { self->send(peers.coordinator, end); }
  void perform(Self self, scheduler::FollowFrom& follow) {
    std::erase_if(follow.sources, [&](scheduler::Rank source) { return !introduced.contains(source); });
    self->send(peers.follower, follow);
  }
  void perform(Self self, scheduler::HasLeft&) { self->send(setup.supervisor, PartEnded{}); }
  void perform(Self self, scheduler::EveryoneLeft& all) { self->send(setup.supervisor, all); }
  void perform(Self self, scheduler::Failure& failure) {
    self->send(setup.supervisor, JobFailed{to_error_kind(failure.kind), failure.message, -1});
  }

  void perform(Self self, scheduler::BeginView& begin) {
    give_key(begin.view);
    const scheduler::View& view = begin.view;
    std::string names;
    for (const scheduler::Member& member : view.members) names += (names.empty() ? "" : ", ") + member.name;
    spdlog::info("view {}/{}: {} from step {}", view.ballot.number, view.ballot.leader, names, view.step);
    const bool leader_is_member = view.position(view.ballot.leader).has_value();
    *setup.context->speaker = int64_t(leader_is_member ? view.ballot.leader : view.members.front().rank);
    self->send(setup.supervisor, begin);
    // No role begins: what is in the folder stays as it is.
    if (view.step == 0 && !no_beginning.empty())
      return self->send(setup.supervisor, JobFailed{ErrorKind::corrupt, no_beginning, -1, true});
    // The coordinator first: a member that is ready sooner than the leader finds it listening.
    if (view.ballot.leader == own.rank) self->send(peers.coordinator, begin);
    if (!view.position(own.rank)) return;
    self->send(peers.follower, begin);
    self->send(peers.monitor, begin);
    self->send(peers.member, begin);
  }
};
static_assert(!std::is_aggregate_v<membership_state>);

membership_actor::behavior_type membership(membership_actor::stateful_pointer<membership_state> self,
                                           RoleSetup setup, MembershipPeers peers) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  self->state.peers = std::move(peers);
  const supervisor_actor supervisor = self->state.setup.supervisor;
  const auto run = [self, supervisor](auto event) { guarded(self, supervisor, [&] { event(self->state); }); };
  return {
      [self, run](const Post& post) { run([&](auto& state) { state.on_post(self, post); }); },
      [self, run](const JoinCluster& ready) { run([&](auto& state) { state.join(self, ready); }); },
      [self, run](const PeerLinked& up) {
        run([&](auto& state) {
          state.linked.insert(up.peer);
          if (state.decide) state.introduce(self, up.peer, false);
        });
      },
      [self, run](const PeerUnlinked& gone) { run([&](auto& state) { state.unlinked(self, gone); }); },
      [self, run](const scheduler::Fenced& fenced) {
        run([&](auto& state) { state.apply(self, state.decide->on_fenced(fenced.inventory, now_us())); });
      },
      [self, run](const StepReached& at) {
        run([&](auto& state) {
          state.reached_step = at.step;
          if (at.wants_to_leave) self->send(state.setup.supervisor, ReadyToLeave{});
          state.apply(self, state.decide->on_step(at.step, at.wants_to_leave, now_us()));
        });
      },
      [run](const ViewStepReached& at) { run([&](auto& state) { state.decide->on_view_step(at.step); }); },
      [self, run](const MemberIsStuck& stuck) {
        run([&](auto& state) {
          spdlog::warn("{} holds the others up", state.setup.context->name_of(stuck.rank));
          if (state.setup.context->elastic()) state.apply(self, state.decide->on_stuck(stuck.rank, now_us()));
        });
      },
      [self, run](const RingBroken& ring) { run([&](auto& state) { state.broken(self, ring); }); },
      [self, run](Tick) { run([&](auto& state) { state.tick(self); }); },
  };
}

}  // namespace

membership_actor spawn_membership(caf::actor_system& system, RoleSetup setup, MembershipPeers peers) {
  return system.spawn(membership, std::move(setup), std::move(peers));
}

}  // namespace troupe::actors
