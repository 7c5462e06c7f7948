#include <list>
#include <optional>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/engine_setup.hpp"
#include "actors/guarded.hpp"
#include "actors/roles.hpp"

namespace troupe::actors {

namespace {

constexpr size_t kSamplesAheadMax = 64;  // slots whose samples are kept; the oldest go first

struct loader_state {
  loader_state() = default;
  static inline const char* name = "data_loader";

  RoleSetup setup;
  std::shared_ptr<const data::Dataset> dataset;
  std::list<SlotSamples> ahead;

  std::shared_ptr<const Batch> make(int64_t step, uint32_t slot) const {
    const config::JobConfig& job = setup.context->job;
    const scheduler::SlotPlan plan = setup.context->plan();
    if (!plan.is_evaluation(slot))
      return std::make_shared<const Batch>(
          dataset->slot_batch(uint64_t(job.seed), uint64_t(step), slot, plan.training));
    // Held-out packs, spread evenly over the split; with more slots than packs the rest are empty.
    const uint64_t packs = dataset->packs(data::Split::valid), index = slot - plan.training;
    if (packs < plan.evaluation && index >= packs) return std::make_shared<const Batch>();
    const uint64_t pack = packs < plan.evaluation ? index : index * packs / plan.evaluation;
    return std::make_shared<const Batch>(dataset->batch_of_pack(data::Split::valid, pack));
  }

  void prefetch(const PrefetchSamples& wanted) {
    for (uint32_t slot : wanted.slots) {
      const bool here = std::any_of(ahead.begin(), ahead.end(),
                                    [&](const auto& s) { return s.step == wanted.step && s.slot == slot; });
      if (here) continue;
      ahead.push_back({wanted.step, slot, make(wanted.step, slot)});
      if (ahead.size() > kSamplesAheadMax) ahead.pop_front();
    }
  }

  SlotSamples take(const TakeSamples& wanted) {
    for (auto it = ahead.begin(); it != ahead.end(); ++it) {
      if (it->step != wanted.step || it->slot != wanted.slot) continue;
      SlotSamples found = std::move(*it);
      ahead.erase(it);
      return found;
    }
    return {wanted.step, wanted.slot, make(wanted.step, wanted.slot)};
  }
};
static_assert(!std::is_aggregate_v<loader_state>);

loader_actor::behavior_type loader(loader_actor::stateful_pointer<loader_state> self, RoleSetup setup) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  const supervisor_actor& supervisor = self->state.setup.supervisor;
  return {
      [self, supervisor](OpenDataset) {
        return guarded_answer<DatasetOpened>(self, supervisor, [&] {
          const JobContext& context = *self->state.setup.context;
          self->state.dataset = open_dataset(context.job, context.data_folder);
          return DatasetOpened{self->state.dataset};
        });
      },
      [self, supervisor](const PrefetchSamples& wanted) {
        guarded(self, supervisor, [&] { self->state.prefetch(wanted); });
      },
      [self, supervisor](const TakeSamples& wanted) {
        return guarded_answer<SlotSamples>(self, supervisor, [&] { return self->state.take(wanted); });
      },
  };
}

}  // namespace

loader_actor spawn_loader(caf::actor_system& system, RoleSetup setup) {
  return system.spawn<caf::detached>(loader, std::move(setup));
}

}  // namespace troupe::actors
