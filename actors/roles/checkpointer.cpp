#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include "actors/engine_setup.hpp"
#include "actors/guarded.hpp"
#include "actors/ledger.hpp"
#include "actors/roles.hpp"

namespace troupe::actors {

namespace {

struct checkpointer_state {
  checkpointer_state() = default;
  static inline const char* name = "checkpointer";
};
static_assert(!std::is_aggregate_v<checkpointer_state>);

Saved save(const JobContext& context, const model::CheckpointInfo& info, const model::TrainState& state) {
  const auto folder = checkpoint_folder(context.out_folder);
  std::filesystem::create_directories(folder);
  const auto path = model::checkpoint_path(folder, state.step, context.node());
  // A checkpoint that outlives a loss of power needs the lines of the steps before it; those of the last ones
  // are written at the same time.
  const auto ledger = ledger_path(context.out_folder, context.node());
  sync_ledger(ledger);
  model::save_checkpoint(path, info, state);
  sync_ledger(ledger);
  model::prune_checkpoints(folder, int(context.job.checkpoint_keep), state.step);
  spdlog::info("wrote {}", path.string());
  return {state.step, path.string(), ""};
}

// One that is not the last may fail: the job goes on, and the next may succeed.
Saved try_to_save(const JobContext& context, const model::CheckpointInfo& info, const SaveState& snapshot) {
  try {
    return save(context, info, *snapshot.state);
  } catch (const Error& problem) {
    if (snapshot.last) throw;
    spdlog::warn("no checkpoint at step {}: {}", snapshot.state->step, problem.what());
  } catch (const std::filesystem::filesystem_error& problem) {
    if (snapshot.last) throw error(ErrorKind::file, "cannot write a checkpoint: {}", problem.what());
    spdlog::warn("no checkpoint at step {}: {}", snapshot.state->step, problem.what());
  }
  return {snapshot.state->step, "", ""};
}

checkpointer_actor::behavior_type checkpointer(checkpointer_actor::stateful_pointer<checkpointer_state> self,
                                               RoleSetup setup,
                                               std::shared_ptr<const model::CheckpointInfo> info) {
  use_exception_handler(self);
  return {
      [self, setup, info](const SaveState& snapshot) {
        return guarded_answer<Saved>(self, setup.supervisor,
                                     [&] { return try_to_save(*setup.context, *info, snapshot); });
      },
  };
}

}  // namespace

checkpointer_actor spawn_checkpointer(caf::actor_system& system, RoleSetup setup,
                                      std::shared_ptr<const model::CheckpointInfo> info) {
  return system.spawn<caf::detached>(checkpointer, std::move(setup), std::move(info));
}

}  // namespace troupe::actors
