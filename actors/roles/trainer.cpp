#include <chrono>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/engines/train_engine.hpp"
#include "actors/guarded.hpp"
#include "actors/roles/roles.hpp"

namespace troupe::actors {

namespace {

struct trainer_state {
  trainer_state() = default;
  static inline const char* name = "trainer";

  std::shared_ptr<TrainEngine> engine;
  uint32_t worker = 0;

  SlotDone run(const SlotSamples& slot) {
    const auto begin = std::chrono::steady_clock::now();
    engine->run_slot(worker, slot.step, slot.slot, *slot.batch);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    return {worker, slot.step, slot.slot, took.count()};
  }
};
static_assert(!std::is_aggregate_v<trainer_state>);

trainer_actor::behavior_type trainer(trainer_actor::stateful_pointer<trainer_state> self, RoleSetup setup,
                                     std::shared_ptr<TrainEngine> engine, uint32_t worker) {
  use_exception_handler(self);
  self->state.engine = std::move(engine);
  self->state.worker = worker;
  const supervisor_actor supervisor = setup.supervisor;
  guarded(self, supervisor, [&] { self->state.engine->open_worker(worker); });  // on this thread
  return {
      [self, supervisor](const SlotSamples& slot) {
        return guarded_answer<SlotDone>(self, supervisor, [&] { return self->state.run(slot); });
      },
      [self, supervisor](const ShareWork& share) {
        return guarded_answer<WorkShared>(self, supervisor, [&] {
          share.work->run(self->state.engine->stream(self->state.worker));
          return WorkShared{};
        });
      },
  };
}

}  // namespace

trainer_actor spawn_trainer(caf::actor_system& system, RoleSetup setup, std::shared_ptr<TrainEngine> engine,
                            uint32_t worker) {
  return system.spawn<caf::detached>(trainer, std::move(setup), std::move(engine), worker);
}

}  // namespace troupe::actors
