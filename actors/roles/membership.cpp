#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <openssl/rand.h>
#include <spdlog/spdlog.h>

#include "actors/guarded.hpp"
#include "actors/roles.hpp"
#include "actors/wire.hpp"
#include "kernels/base/hash.hpp"
#include "scheduler/formation.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kTick{200};  // an unanswered Join is repeated this often
constexpr scheduler::Microseconds kJoinPatienceUs = 60'000'000;
constexpr scheduler::Microseconds kViewPatienceUs =
    2 * kJoinPatienceUs;  // a member's, whose leader never answers

scheduler::Microseconds now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

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
  std::optional<scheduler::Formation> formation;  // on the leader
  std::optional<scheduler::JoinRequest> own;
  scheduler::Microseconds joined_us = 0;
  bool in_view = false;

  void lead() {
    scheduler::Formation::Options options;
    options.leader = kLeader;
    // Later jobs of the same nodes get higher ballots, so that messages of an earlier one are told apart.
    options.ballot_number =
        uint64_t(std::chrono::system_clock::now().time_since_epoch() / std::chrono::microseconds(1));
    for (size_t i = 0; i < setup.context->cluster.nodes.size(); ++i)
      options.expected.emplace_back(scheduler::Rank(i), setup.context->cluster.nodes[i].name);
    options.patience_us = kJoinPatienceUs;
    options.bulk_key = one_time_key();
    formation.emplace(std::move(options), now_us());
  }

  void join(Self self, const JoinCluster& ready) {
    const NodeServices& node = *setup.context->services;
    own.emplace();
    own->member = {node.rank, node.node, node.bulk ? node.bulk->address() : "", node.incarnation,
                   node.host_id};
    const auto hash = Sha256().update(ready.fingerprint_text).digest();
    own->fingerprint = {hash.begin(), hash.end()};
    own->fingerprint_text = ready.fingerprint_text;
    own->step = ready.step;
    own->digest = ready.digest;
    joined_us = now_us();
    tick(self);
  }

  void tick(Self self) {
    if (in_view) return;
    if (formation) {
      apply(self, formation->on_join(*own));
      if (!in_view) apply(self, formation->on_tick(now_us()));
    } else if (now_us() - joined_us > kViewPatienceUs) {
      self->send(setup.supervisor,
                 JobFailed{ErrorKind::timeout, "the leader has not formed a view", int64_t(kLeader)});
      in_view = true;  // nothing more to decide
    } else {
      self->send(peers.members.at(kLeader), Post{own->member.rank, to_wire(*setup.context, *own)});
    }
    if (!in_view) self->delayed_send(self, kTick, Tick{});
  }

  void on_post(Self self, const Post& post) {
    if (!own || !same_job(*setup.context, *post.envelope)) return;
    if (formation && post.envelope->has_join()) apply(self, formation->on_join(join_of(*post.envelope)));
    if (!formation && !in_view && post.envelope->has_view()) begin(self, view_of(*post.envelope));
  }

  void apply(Self self, const std::optional<scheduler::FormationAction>& action) {
    if (!action) return;
    if (const auto* failure = std::get_if<scheduler::Failure>(&*action)) {
      self->send(setup.supervisor, JobFailed{to_error_kind(failure->kind), failure->message, -1});
      in_view = true;  // nothing more to decide
      return;
    }
    const auto& formed = std::get<scheduler::ViewFormed>(*action);
    const EnvelopePtr view = to_wire(*setup.context, formed);
    for (const auto& [rank, member] : peers.members)
      if (rank != setup.context->rank()) self->send(member, Post{setup.context->rank(), view});
    begin(self, formed);
  }

  void begin(Self self, const scheduler::ViewFormed& formed) {
    in_view = true;
    spdlog::info("view {}: {} nodes from step {}", formed.view.ballot.number, formed.view.members.size(),
                 formed.view.step);
    // The coordinator first: a member that is ready sooner than the leader finds it listening.
    if (peers.coordinator) self->send(peers.coordinator, ViewBegins{formed.view, formed.view.step, ""});
    self->request(peers.aggregator, kSetupPatience, OpenRing{formed.view, formed.view.step, formed.lacking})
        .then(
            [self, view = formed.view](const RingOpened& opened) {
              const ViewBegins begins{view, opened.step, opened.digest};
              const MembershipPeers& to = self->state.peers;
              self->send(to.monitor, begins);
              self->send(to.member, begins);
            },
            report_silence(self, setup.supervisor, "ring"));
  }
};
static_assert(!std::is_aggregate_v<membership_state>);

membership_actor::behavior_type membership(membership_actor::stateful_pointer<membership_state> self,
                                           RoleSetup setup, MembershipPeers peers) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  self->state.peers = std::move(peers);
  const supervisor_actor supervisor = self->state.setup.supervisor;
  if (self->state.setup.context->leads()) guarded(self, supervisor, [&] { self->state.lead(); });
  return {
      [self, supervisor](const Post& post) {
        guarded(self, supervisor, [&] { self->state.on_post(self, post); });
      },
      [self, supervisor](const JoinCluster& ready) {
        guarded(self, supervisor, [&] { self->state.join(self, ready); });
      },
      [self, supervisor](Tick) { guarded(self, supervisor, [&] { self->state.tick(self); }); },
  };
}

}  // namespace

membership_actor spawn_membership(caf::actor_system& system, RoleSetup setup, MembershipPeers peers) {
  return system.spawn(membership, std::move(setup), std::move(peers));
}

}  // namespace troupe::actors
