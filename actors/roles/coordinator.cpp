#include "scheduler/coordinator.hpp"

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/clock.hpp"
#include "actors/guarded.hpp"
#include "actors/roles/roles.hpp"
#include "actors/wire.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kTick{200};

struct coordinator_state {
  coordinator_state() = default;
  static inline const char* name = "coordinator";
  using Self = coordinator_actor::stateful_pointer<coordinator_state>;

  RoleSetup setup;
  membership_actor membership;
  std::map<scheduler::Rank, post_actor> members;
  std::optional<scheduler::Coordinator> decide;  // while this node leads
  bool stop_wanted = false;                      // whoever leads when it is asked for, or comes to lead later

  void begin(Self self, scheduler::View view) {
    const int64_t stop_at = setup.context->stop_at;
    if (stop_at > 0) view.end_step = std::max(view.step, std::min(stop_at, view.end_step.value_or(stop_at)));
    decide.emplace(view, setup.context->plan(), now_us(), 3000 * setup.context->cluster.patience_ms);
    if (stop_wanted) apply(self, decide->stop());
  }

  void on_post(Self self, const Post& post) {
    if (!decide || !post.envelope->has_claim() || !same_job(*setup.context, *post.envelope)) return;
    const int64_t before = decide->step();
    apply(self, decide->on_claim(post.from, claim_of(*post.envelope), now_us()));
    if (decide->step() != before) self->send(membership, ViewStepReached{decide->step()});
  }

  void stop(Self self) {
    stop_wanted = true;
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
    for (const scheduler::Member& member : decide->view().members)
      if (!send.to || *send.to == member.rank)
        self->send(members.at(member.rank), Post{setup.context->rank(), seal});
  }
  void perform(Self self, const scheduler::AllCommitted& all) {
    self->send(setup.supervisor, StepsDone{all.step});
  }
  void perform(Self self, const scheduler::MemberStuck& stuck) {
    self->send(membership, MemberIsStuck{stuck.rank});
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
  self->delayed_send(self, kTick, Tick{});
  const supervisor_actor supervisor = self->state.setup.supervisor;
  return {
      [self, supervisor](const Post& post) {
        guarded(self, supervisor, [&] { self->state.on_post(self, post); });
      },
      [self](const TellMembership& tell) { self->state.membership = tell.membership; },
      [self](const MeetMembers& meet) { self->state.members = meet.members; },
      [self, supervisor](const scheduler::BeginView& begins) {
        guarded(self, supervisor, [&] { self->state.begin(self, begins.view); });
      },
      [self](scheduler::EndLead) { self->state.decide.reset(); },
      [self, supervisor](const StopWanted&) { guarded(self, supervisor, [&] { self->state.stop(self); }); },
      [self, supervisor](Tick) {
        guarded(self, supervisor, [&] {
          if (self->state.decide) self->state.apply(self, self->state.decide->on_tick(now_us()));
        });
        self->delayed_send(self, kTick, Tick{});
      },
  };
}

}  // namespace

coordinator_actor spawn_coordinator(caf::actor_system& system, RoleSetup setup) {
  return system.spawn(coordinator, std::move(setup));
}

}  // namespace troupe::actors
