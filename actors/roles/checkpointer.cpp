#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include "actors/engines/engine_setup.hpp"
#include "actors/guarded.hpp"
#include "actors/ledger.hpp"
#include "actors/roles/roles.hpp"
#include "actors/roles/train_log.hpp"
#include "actors/wire.hpp"

namespace troupe::actors {

namespace {

struct checkpointer_state {
  checkpointer_state() = default;
  static inline const char* name = "checkpointer";
  using Self = checkpointer_actor::stateful_pointer<checkpointer_state>;

  RoleSetup setup;
  std::shared_ptr<const model::CheckpointInfo> info;

  Saved save(const model::TrainState& state) const {
    const JobContext& context = *setup.context;
    const auto folder = checkpoint_folder(context.out_folder);
    std::filesystem::create_directories(folder);
    const auto path = model::checkpoint_path(folder, state.step, context.node());
    // A checkpoint that outlives a loss of power needs the lines of the steps before it; those of the last
    // ones are written at the same time.
    const auto ledger = ledger_path(context.out_folder, context.node());
    sync_ledger(ledger);
    model::save_checkpoint(path, *info, state);
    sync_ledger(ledger);
    model::prune_checkpoints(folder, int(context.job.checkpoint_keep), state.step);
    spdlog::info("wrote {}", path.string());
    return {state.step, path.string(), ""};
  }

  // One that is not the last may fail: the job goes on, and the next may succeed.
  Saved try_to_save(Self self, const SaveState& snapshot) const {
    try {
      return save(*snapshot.state);
    } catch (const Error& problem) {
      if (snapshot.last) throw;
      tell(self, fmt::format("no checkpoint at step {}: {}", snapshot.state->step, problem.what()));
    } catch (const std::filesystem::filesystem_error& problem) {
      if (snapshot.last) throw error(ErrorKind::file, "cannot write a checkpoint: {}", problem.what());
      tell(self, fmt::format("no checkpoint at step {}: {}", snapshot.state->step, problem.what()));
    }
    return {snapshot.state->step, "", ""};
  }

  // A user who counts on checkpoints is to hear of it while there is time.
  void tell(Self self, const std::string& what) const {
    spdlog::warn("{}", what);
    if (setup.context->speaks()) open_train_log(*setup.context)->warn("{}", what);
    self->send(setup.supervisor, Publish{notice(*setup.context, what)});
  }
};
static_assert(!std::is_aggregate_v<checkpointer_state>);

checkpointer_actor::behavior_type checkpointer(checkpointer_state::Self self, RoleSetup setup,
                                               std::shared_ptr<const model::CheckpointInfo> info) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  self->state.info = std::move(info);
  const supervisor_actor supervisor = self->state.setup.supervisor;
  return {
      [self, supervisor](const SaveState& snapshot) {
        return guarded_answer<Saved>(self, supervisor,
                                     [&] { return self->state.try_to_save(self, snapshot); });
      },
  };
}

}  // namespace

checkpointer_actor spawn_checkpointer(caf::actor_system& system, RoleSetup setup,
                                      std::shared_ptr<const model::CheckpointInfo> info) {
  return system.spawn<caf::detached>(checkpointer, std::move(setup), std::move(info));
}

}  // namespace troupe::actors
