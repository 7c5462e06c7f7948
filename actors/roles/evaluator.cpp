#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/guarded.hpp"
#include "actors/roles.hpp"
#include "actors/train_engine.hpp"

namespace troupe::actors {

namespace {

struct evaluator_state {
  evaluator_state() = default;
  static inline const char* name = "evaluator";

  model::EvaluationState seen;

  Validated judge(int64_t step, const model::LossTotals& totals) {
    seen.record(step, totals);
    const double accuracy = totals.tokens == 0 ? 0 : double(totals.correct) / double(totals.tokens);
    return {step, totals.mean_nll(), accuracy, seen.best_step == step, seen.best_step};
  }
};
static_assert(!std::is_aggregate_v<evaluator_state>);

evaluator_actor::behavior_type evaluator(evaluator_actor::stateful_pointer<evaluator_state> self,
                                         RoleSetup setup, monitor_actor monitor,
                                         const model::EvaluationState& so_far) {
  use_exception_handler(self);
  self->state.seen = so_far;
  return {
      [self, setup, monitor](const StepReport& report) {
        guarded(self, setup.supervisor, [&] {
          const StepOutcome& outcome = *report.outcome;
          if (outcome.evaluation)
            self->send(monitor, self->state.judge(outcome.plan.step, *outcome.evaluation));
          self->send(monitor, report);
        });
      },
  };
}

}  // namespace

evaluator_actor spawn_evaluator(caf::actor_system& system, RoleSetup setup, monitor_actor monitor,
                                const model::EvaluationState& so_far) {
  return system.spawn(evaluator, std::move(setup), std::move(monitor), so_far);
}

}  // namespace troupe::actors
