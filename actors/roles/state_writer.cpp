#include <filesystem>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include "actors/guarded.hpp"
#include "actors/roles/roles.hpp"
#include "model/state.hpp"

namespace troupe::actors {

namespace {

struct state_writer_state {
  state_writer_state() = default;
  ~state_writer_state() {
    std::error_code none;
    if (!path.empty()) std::filesystem::remove(path, none);
  }
  state_writer_state(const state_writer_state&) = delete;
  state_writer_state& operator=(const state_writer_state&) = delete;
  static inline const char* name = "state_writer";

  std::filesystem::path path;

  StateWritten write(const model::CheckpointInfo& info, const model::TrainState& state) const {
    try {
      std::filesystem::create_directories(path.parent_path());
      model::save_checkpoint(path, info, state);
      return {state.step, ""};
    } catch (...) {
      return {state.step, current_failure().message};
    }
  }
};
static_assert(!std::is_aggregate_v<state_writer_state>);

state_writer_actor::behavior_type state_writer(state_writer_actor::stateful_pointer<state_writer_state> self,
                                               const RoleSetup& setup,
                                               std::shared_ptr<const model::CheckpointInfo> info) {
  use_exception_handler(self);
  self->state.path = offered_state_path(*setup.context);
  return {[self, info = std::move(info)](const WriteState& wanted) {
    return self->state.write(*info, *wanted.state);
  }};
}

}  // namespace

std::filesystem::path offered_state_path(const JobContext& context) {
  return std::filesystem::path(context.out_folder) / "transfer" /
         fmt::format("state-of-{}.troupe", context.node());
}

state_writer_actor spawn_state_writer(caf::actor_system& system, RoleSetup setup,
                                      std::shared_ptr<const model::CheckpointInfo> info) {
  return system.spawn<caf::detached>(state_writer, std::move(setup), std::move(info));
}

}  // namespace troupe::actors
