#include "scheduler/member.hpp"

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/guarded.hpp"
#include "actors/roles.hpp"
#include "actors/wire.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kTick{10};

scheduler::Microseconds now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct member_state {
  member_state() = default;
  static inline const char* name = "member";
  using Self = member_actor::stateful_pointer<member_state>;

  RoleSetup setup;
  MemberPeers peers;
  std::optional<scheduler::MemberRole> role;
  std::vector<uint32_t> free;  // workers without a slot

  void begin(Self self, const ViewBegins& begins) {
    scheduler::MemberOptions options;
    options.self = setup.context->rank();
    options.workers = uint32_t(peers.trainers.size());
    options.lookahead = options.workers;
    for (uint32_t i = 0; i < options.workers; ++i) free.push_back(i);
    role.emplace(options, setup.context->plan(), begins.step, begins.digest);
    apply(self, role->begin(begins.view, now_us()));
    self->delayed_send(self, kTick, Tick{});
  }

  void on_post(Self self, const Post& post) {
    if (!role || !same_job(*setup.context, *post.envelope)) return;
    if (post.envelope->has_grant()) apply(self, role->on_grant(grant_of(*post.envelope), now_us()));
    if (post.envelope->has_seal()) apply(self, role->on_seal(seal_of(*post.envelope), now_us()));
  }

  void apply(Self self, scheduler::MemberActions actions) {
    for (auto& action : actions) std::visit([&](auto& one) { perform(self, one); }, action);
  }

  void perform(Self self, scheduler::SendClaim& send) {
    self->send(peers.coordinator, Post{setup.context->rank(), to_wire(*setup.context, send.claim)});
  }
  void perform(Self self, scheduler::PrefetchSlots& hint) {
    self->send(peers.loader, PrefetchSamples{hint.step, std::move(hint.slots)});
  }
  void perform(Self self, scheduler::StartReduce& start) {
    self->send(peers.aggregator, Reduce{std::move(start.seal)});
  }
  void perform(Self self, scheduler::StartCommit& start) { self->send(peers.aggregator, Commit{start.step}); }
  // What only a change of view asks for; the first view is the only one yet.
  template <class Other>
  void perform(Self, Other&) {
    TROUPE_CHECK(false, "the view of a job has changed");
  }
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
    apply(self, role->on_slot_done(done.step, done.slot, done.seconds, done.flags, now_us()));
  }
};
static_assert(!std::is_aggregate_v<member_state>);

member_actor::behavior_type member(member_actor::stateful_pointer<member_state> self, RoleSetup setup,
                                   MemberPeers peers) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  self->state.peers = std::move(peers);
  const supervisor_actor supervisor = self->state.setup.supervisor;
  return {
      [self, supervisor](const Post& post) {
        guarded(self, supervisor, [&] { self->state.on_post(self, post); });
      },
      [self, supervisor](const ViewBegins& begins) {
        guarded(self, supervisor, [&] { self->state.begin(self, begins); });
      },
      [self, supervisor](const Reduced& done) {
        guarded(self, supervisor, [&] { self->state.apply(self, self->state.role->on_reduced(done.fence)); });
      },
      [self, supervisor](const Committed& done) {
        guarded(self, supervisor, [&] {
          self->state.apply(self, self->state.role->on_committed(done.step, done.digest, now_us()));
        });
      },
      [self, supervisor](Tick) {
        guarded(self, supervisor, [&] { self->state.apply(self, self->state.role->on_tick(now_us())); });
        self->delayed_send(self, kTick, Tick{});
      },
  };
}

}  // namespace

member_actor spawn_member(caf::actor_system& system, RoleSetup setup, MemberPeers peers) {
  return system.spawn(member, std::move(setup), std::move(peers));
}

}  // namespace troupe::actors
