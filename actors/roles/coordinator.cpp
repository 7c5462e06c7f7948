#include "scheduler/coordinator.hpp"

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/guarded.hpp"
#include "actors/roles.hpp"
#include "actors/wire.hpp"

namespace troupe::actors {

namespace {

scheduler::Microseconds now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct coordinator_state {
  coordinator_state() = default;
  static inline const char* name = "coordinator";
  using Self = coordinator_actor::stateful_pointer<coordinator_state>;

  RoleSetup setup;
  std::map<scheduler::Rank, post_actor> members;
  std::optional<scheduler::Coordinator> decide;
  bool stop_at_begin = false;

  void begin(Self self, const ViewBegins& begins) {
    decide.emplace(begins.view, setup.context->plan(), now_us());
    if (stop_at_begin) apply(self, decide->stop());
  }

  void on_post(Self self, const Post& post) {
    if (!decide || !post.envelope->has_claim() || !same_job(*setup.context, *post.envelope)) return;
    apply(self, decide->on_claim(post.from, claim_of(*post.envelope), now_us()));
  }

  void stop(Self self) {
    stop_at_begin = true;
    if (decide) apply(self, decide->stop());
  }

  void apply(Self self, const scheduler::CoordinatorActions& actions) {
    for (const auto& action : actions) std::visit([&](const auto& one) { perform(self, one); }, action);
  }

  void perform(Self self, const scheduler::SendGrant& send) {
    self->send(members.at(send.to), Post{setup.context->rank(), to_wire(*setup.context, send.grant)});
  }
  void perform(Self self, const scheduler::SendSeal& send) {
    const EnvelopePtr seal = to_wire(*setup.context, send.seal);
    for (const auto& [rank, member] : members)
      if (!send.to || *send.to == rank) self->send(member, Post{setup.context->rank(), seal});
  }
  void perform(Self self, const scheduler::AllCommitted& all) {
    self->send(setup.supervisor, StepsDone{all.step});
  }
  void perform(Self self, const scheduler::Failure& failure) {
    self->send(setup.supervisor, JobFailed{to_error_kind(failure.kind), failure.message, -1});
  }
};
static_assert(!std::is_aggregate_v<coordinator_state>);

coordinator_actor::behavior_type coordinator(coordinator_actor::stateful_pointer<coordinator_state> self,
                                             RoleSetup setup) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  const supervisor_actor supervisor = self->state.setup.supervisor;
  return {
      [self, supervisor](const Post& post) {
        guarded(self, supervisor, [&] { self->state.on_post(self, post); });
      },
      [self](const MeetMembers& meet) { self->state.members = meet.members; },
      [self, supervisor](const ViewBegins& begins) {
        guarded(self, supervisor, [&] { self->state.begin(self, begins); });
      },
      [self, supervisor](const StopWanted&) { guarded(self, supervisor, [&] { self->state.stop(self); }); },
  };
}

}  // namespace

coordinator_actor spawn_coordinator(caf::actor_system& system, RoleSetup setup) {
  return system.spawn(coordinator, std::move(setup));
}

}  // namespace troupe::actors
