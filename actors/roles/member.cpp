#include "scheduler/member.hpp"

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/clock.hpp"
#include "actors/guarded.hpp"
#include "actors/roles/roles.hpp"
#include "actors/wire.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kTick{20};

struct member_state {
  member_state() = default;
  static inline const char* name = "member";
  using Self = member_actor::stateful_pointer<member_state>;

  RoleSetup setup;
  MemberPeers peers;
  std::shared_ptr<RingSession> ring;
  membership_actor membership;
  std::optional<scheduler::MemberRole> role;
  std::vector<uint32_t> free;                   // workers without a slot
  scheduler::Microseconds broken_since_us = 0;  // a ring that nobody has said a word about; 0: none
  bool installing = false;                      // the state is being replaced: what concerns it waits
  std::optional<scheduler::Ballot> fence_after;

  void on_post(Self self, const Post& post) {
    if (!same_job(*setup.context, *post.envelope)) return;
    if (post.envelope->has_grant()) apply(self, role->on_grant(grant_of(*post.envelope), now_us()));
    if (post.envelope->has_seal()) apply(self, role->on_seal(seal_of(*post.envelope), now_us()));
  }

  void fence(Self self, const scheduler::Ballot& ballot) {
    ring->supersede(ballot);
    if (installing)
      fence_after = ballot;
    else
      apply(self, role->fence(ballot));
  }

  void tick(Self self) {
    apply(self, role->on_tick(now_us()));
    // It failed without a peer to blame, as when a new view is on its way. That must not take for ever.
    if (role->phase() != scheduler::MemberRole::Phase::broken)
      broken_since_us = 0;
    else if (broken_since_us == 0)
      broken_since_us = now_us();
    else if (now_us() - broken_since_us > setup.context->cluster.patience_ms * 1000) {
      broken_since_us = now_us();
      self->send(membership, RingBroken{role->view().ballot, setup.context->rank(), "the ring has ended"});
    }
  }

  void committed(Self self, const Committed& done) {
    apply(self, role->on_committed(done.step, done.digest, now_us()));
    report(self);
  }
  void report(Self self) { self->send(membership, StepReached{role->step(), role->wants_to_leave()}); }

  // --- a state from a peer ---

  template <class Install>
  caf::result<Installed> install(Self self, const Install& what) {
    const bool idle = role->phase() == scheduler::MemberRole::Phase::idle && role->running() == 0;
    if (!idle || installing) return Installed{false, true, role->step(), role->digest()};
    installing = true;
    auto promise = self->make_response_promise<Installed>();
    self->request(peers.aggregator, kWorkPatience, what)
        .then(
            [this, self, promise](const Installed& installed) mutable {
              guarded(self, setup.supervisor, [&] { take_over(self, installed); });
              promise.deliver(installed);
            },
            [this, self, promise](const caf::error& problem) mutable {
              installing = false;
              report_silence(self, setup.supervisor, "aggregator")(problem);
              promise.deliver(problem);
            });
    return promise;
  }

  void take_over(Self self, const Installed& installed) {
    installing = false;
    if (installed.done) {
      role->restore(installed.step, installed.digest);
      report(self);
    }
    if (const auto ballot = std::exchange(fence_after, std::nullopt)) apply(self, role->fence(*ballot));
  }

  // --- what the role decides ---

  void apply(Self self, scheduler::MemberActions actions) {
    for (auto& action : actions) std::visit([&](auto& one) { perform(self, one); }, action);
  }

  void perform(Self self, scheduler::SendClaim& send) {
    self->send(peers.coordinators.at(send.claim.fence.ballot.leader),
               Post{setup.context->rank(), to_wire(*setup.context, send.claim)});
  }
  void perform(Self self, scheduler::PrefetchSlots& hint) {
    self->send(peers.loader, PrefetchSamples{hint.step, std::move(hint.slots)});
  }
  void perform(Self self, scheduler::FeedReduce& feed) {
    self->send(peers.aggregator, Feed{std::move(feed.seal)});
  }
  void perform(Self self, scheduler::StartReduce& start) {
    role->on_total_overwritten();
    self->send(peers.aggregator, Reduce{std::move(start.seal)});
  }
  void perform(Self self, scheduler::StartCommit& start) { self->send(peers.aggregator, Commit{start.step}); }
  void perform(Self self, scheduler::ClearSum& clear) { self->send(peers.aggregator, clear); }
  // The promise has told the ring already, and the aggregator fetches as soon as the ring of the view stands.
  void perform(Self, scheduler::StopReduce&) {}
  void perform(Self, scheduler::StopFetch&) {}
  void perform(Self, scheduler::FetchTotal&) {}
  void perform(Self self, scheduler::Fenced& fenced) { self->send(membership, std::move(fenced)); }
  void perform(Self self, scheduler::Failure& failure) {
    self->send(setup.supervisor, JobFailed{to_error_kind(failure.kind), failure.message, -1});
  }
  void perform(Self self, scheduler::RunSlot& run) {
    TROUPE_CHECK(!free.empty(), "slot {} came to a node without a free worker", run.slot);
    const uint32_t worker = free.back();
    free.pop_back();
    self->request(peers.loader, kWorkPatience, TakeSamples{run.step, run.slot})
        .then([self, worker](const SlotSamples& samples) { self->state.train(self, worker, samples); },
              report_silence(self, setup.supervisor, "data loader"));
  }
  void train(Self self, uint32_t worker, const SlotSamples& samples) {
    self->request(peers.trainers[worker], kWorkPatience, samples)
        .then([self](const SlotDone& done) { self->state.slot_done(self, done); },
              report_silence(self, setup.supervisor, "trainer"));
  }
  void slot_done(Self self, const SlotDone& done) {
    free.push_back(done.worker);
    apply(self, role->on_slot_done(done.step, done.slot, done.seconds, now_us()));
  }
};
static_assert(!std::is_aggregate_v<member_state>);

member_actor::behavior_type member(member_actor::stateful_pointer<member_state> self, RoleSetup setup,
                                   MemberPeers peers, std::shared_ptr<RingSession> ring,
                                   const scheduler::MemberRole& begun) {
  use_exception_handler(self);
  self->state.role.emplace(begun);
  self->state.setup = std::move(setup);
  self->state.peers = std::move(peers);
  self->state.ring = std::move(ring);
  for (uint32_t i = 0; i < self->state.peers.trainers.size(); ++i) self->state.free.push_back(i);
  self->delayed_send(self, kTick, Tick{});
  const supervisor_actor supervisor = self->state.setup.supervisor;
  // Runs one event through the role and performs what it decides.
  const auto decide = [self, supervisor](auto event) {
    guarded(self, supervisor, [&] { self->state.apply(self, event(*self->state.role)); });
  };
  return {
      [self, supervisor](const Post& post) {
        guarded(self, supervisor, [&] { self->state.on_post(self, post); });
      },
      [self](const TellMembership& tell) { self->state.membership = tell.membership; },
      [self, decide](const scheduler::BeginView& begins) {
        // From here, so that the ring stands before what this view makes of it.
        self->send(self->state.peers.aggregator, begins);
        decide([&](auto& role) { return role.begin(begins.view, now_us()); });
      },
      [self, supervisor](const scheduler::FenceMember& fence) {
        guarded(self, supervisor, [&] { self->state.fence(self, fence.ballot); });
      },
      [self](scheduler::LeaveView) { self->state.role->leave_view(); },
      [self](LeaveWanted) {
        self->state.role->leave();
        self->state.report(self);
      },
      [decide](const Reduced& done) { decide([&](auto& role) { return role.on_reduced(done.fence); }); },
      [decide](const ReduceFailed& failed) {
        decide([&](auto& role) { return role.on_reduce_failed(failed.fence); });
      },
      [decide](const TotalFetched& fetched) {
        decide([&](auto& role) {
          return fetched.here ? role.on_total_fetched(fetched.fence) : role.on_fetch_failed(fetched.fence);
        });
      },
      [self, supervisor](const Committed& done) {
        guarded(self, supervisor, [&] { self->state.committed(self, done); });
      },
      [decide](SumCleared) { decide([](auto& role) { return role.on_cleared(now_us()); }); },
      [self, supervisor](const InstallState& state) {
        return guarded_answer<Installed>(self, supervisor, [&] { return self->state.install(self, state); });
      },
      [self, supervisor](const InstallTotal& total) {
        return guarded_answer<Installed>(self, supervisor, [&] { return self->state.install(self, total); });
      },
      [self, supervisor](Tick) {
        guarded(self, supervisor, [&] { self->state.tick(self); });
        self->delayed_send(self, kTick, Tick{});
      },
  };
}

}  // namespace

member_actor spawn_member(caf::actor_system& system, RoleSetup setup, MemberPeers peers,
                          std::shared_ptr<RingSession> ring, int64_t step, std::string digest) {
  scheduler::MemberOptions options;
  options.self = setup.context->rank();
  options.workers = uint32_t(peers.trainers.size());
  options.lookahead = options.workers;
  scheduler::MemberRole role(options, setup.context->plan(), step, std::move(digest));
  return system.spawn(member, std::move(setup), std::move(peers), std::move(ring), std::move(role));
}

}  // namespace troupe::actors
