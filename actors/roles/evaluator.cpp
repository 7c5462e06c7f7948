#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/engines/train_engine.hpp"
#include "actors/guarded.hpp"
#include "actors/roles/roles.hpp"

namespace troupe::actors {

namespace {

struct evaluator_state {
  evaluator_state() = default;
  static inline const char* name = "evaluator";
};
static_assert(!std::is_aggregate_v<evaluator_state>);

// The best step is the state's: it has seen every evaluation, also those before this node took part.
Validated judge(const StepOutcome& outcome) {
  const model::LossTotals& totals = *outcome.evaluation;
  const double accuracy = totals.tokens == 0 ? 0 : double(totals.correct) / double(totals.tokens);
  return {outcome.plan.step, totals.mean_nll(), accuracy, outcome.best_step == outcome.plan.step,
          outcome.best_step};
}

evaluator_actor::behavior_type evaluator(evaluator_actor::stateful_pointer<evaluator_state> self,
                                         RoleSetup setup, monitor_actor monitor) {
  use_exception_handler(self);
  return {
      [self, setup, monitor](const StepReport& report) {
        guarded(self, setup.supervisor, [&] {
          if (report.outcome->evaluation) self->send(monitor, judge(*report.outcome));
          self->send(monitor, report);
        });
      },
      [self, monitor](const FlushReports& flush) { return self->delegate(monitor, flush); },
  };
}

}  // namespace

evaluator_actor spawn_evaluator(caf::actor_system& system, RoleSetup setup, monitor_actor monitor) {
  return system.spawn(evaluator, std::move(setup), std::move(monitor));
}

}  // namespace troupe::actors
