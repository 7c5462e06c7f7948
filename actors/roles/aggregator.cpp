#include <functional>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include "actors/engine_setup.hpp"
#include "actors/guarded.hpp"
#include "actors/roles.hpp"
#include "actors/train_engine.hpp"

namespace troupe::actors {

namespace {

struct aggregator_state {
  aggregator_state() = default;
  static inline const char* name = "aggregator";
  using Self = aggregator_actor::stateful_pointer<aggregator_state>;

  RoleSetup setup;
  std::shared_ptr<RingSession> ring;
  std::shared_ptr<TrainEngine> engine;
  TakePart peers;
  scheduler::Seal seal;  // of the step that is being reduced and committed
  comm::SumMeta sum;     // its total
  bool saving = false;  // a snapshot is on its way to disk

  EngineBuilt build(const BuildEngine& from) {
    engine = build_engine(*setup.context, *from.dataset);
    return {engine};
  }

  RingOpened open(const OpenRing& open) {
    ring->connect(open.view);
    if (!open.lacking.empty()) share_state(open);
    return {engine->state().step, engine->chain()};
  }

  // The leader's newest checkpoint goes round the ring; whoever lacks that state loads it. A job that begins
  // needs no transfer: x(0) follows from the seed.
  void share_state(const OpenRing& open) {
    const scheduler::Rank leader = open.view.ballot.leader, self_rank = setup.context->rank();
    const bool lacks = std::find(open.lacking.begin(), open.lacking.end(), self_rank) != open.lacking.end();
    if (open.step == 0) {
      if (lacks) reset_state(*engine);
      return;
    }
    const auto folder = checkpoint_folder(*setup.context);
    const auto received = folder / fmt::format("received-{}.part", setup.context->node());
    ring->pass_file(leader, self_rank == leader ? newest_checkpoint(folder) : "", received);
    if (self_rank == leader) return;
    if (lacks) load_into(*setup.context, *engine, received);
    std::filesystem::remove(received);
  }

  // A sum counts only when the weights that it was computed with are still what they were.
  void reduce(Self self, const Reduce& start) {
    seal = start.seal;
    share_out(self, engine->verify_work(), [this, self] {
      engine->require_sound();
      sum = ring->reduce(*engine, seal);
      self->send(peers.member, Reduced{seal.fence});
    });
  }

  void commit(Self self) {
    share_out(self, engine->measure_work(!ring->alone()), [this, self] {
      share_out(self, engine->apply_work(sum),
                [this, self] { share_out(self, engine->pack_work(), [this, self] { finish(self); }); });
    });
  }

  // All trainers take from the work; then `next` runs here.
  void share_out(Self self, const std::shared_ptr<SharedWork>& work, std::function<void()> next) {
    auto left = std::make_shared<size_t>(peers.trainers.size());
    for (const trainer_actor& trainer : peers.trainers)
      self->request(trainer, kWorkPatience, ShareWork{work})
          .then(
              [self, left, next](WorkShared) {
                if (--*left == 0) guarded(self, self->state.setup.supervisor, next);
              },
              report_silence(self, setup.supervisor, "trainer"));
  }

  void finish(Self self) {
    auto outcome = std::make_shared<const StepOutcome>(engine->finish_commit(sum));
    self->send(peers.member, Committed{outcome->plan.step, engine->chain()});
    self->send(peers.evaluator, StepReport{outcome, seal, engine->chain()});
    snapshot_if_due(self);
  }

  // While the next step's slots only read the state.
  void snapshot_if_due(Self self) {
    const config::JobConfig& job = setup.context->job;
    const int64_t step = engine->state().step;
    if (!setup.context->leads() || job.checkpoint_every == 0 || step % job.checkpoint_every != 0) return;
    if (step >= job.steps) return;  // the final one is written at the end
    if (saving) {
      spdlog::warn("no checkpoint at step {}: the one before is still being written", step);
      return;
    }
    saving = true;
    self->request(peers.checkpointer, kWorkPatience,
                  SaveState{std::make_shared<const model::TrainState>(engine->snapshot())})
        .then([self](const Saved&) { self->state.saving = false; },
              report_silence(self, setup.supervisor, "checkpointer"));
  }

  caf::result<Saved> save_final(Self self, const SaveFinal& wanted) {
    Saved saved{engine->state().step, "", engine->weights_digest()};
    if (!wanted.write) return saved;
    auto promise = self->make_response_promise<Saved>();
    self->request(peers.checkpointer, kWorkPatience,
                  SaveState{std::make_shared<const model::TrainState>(engine->snapshot())})
        .then(
            [promise, saved](const Saved& written) mutable {
              saved.path = written.path;
              promise.deliver(saved);
            },
            [promise](const caf::error& problem) mutable { promise.deliver(problem); });
    return promise;
  }
};
static_assert(!std::is_aggregate_v<aggregator_state>);

aggregator_actor::behavior_type aggregator(aggregator_actor::stateful_pointer<aggregator_state> self,
                                           RoleSetup setup, std::shared_ptr<RingSession> ring) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  self->state.ring = std::move(ring);
  const supervisor_actor supervisor = self->state.setup.supervisor;
  return {
      [self, supervisor](const BuildEngine& from) {
        return guarded_answer<EngineBuilt>(self, supervisor, [&] { return self->state.build(from); });
      },
      [self](const TakePart& peers) { self->state.peers = peers; },
      [self, supervisor](const OpenRing& open) {
        return guarded_answer<RingOpened>(self, supervisor, [&] { return self->state.open(open); });
      },
      [self, supervisor](const Reduce& start) {
        guarded(self, supervisor, [&] { self->state.reduce(self, start); });
      },
      [self, supervisor](const Commit&) { guarded(self, supervisor, [&] { self->state.commit(self); }); },
      [self, supervisor](const SaveFinal& wanted) {
        return guarded_answer<Saved>(self, supervisor, [&] { return self->state.save_final(self, wanted); });
      },
  };
}

}  // namespace

aggregator_actor spawn_aggregator(caf::actor_system& system, RoleSetup setup,
                                  std::shared_ptr<RingSession> ring) {
  return system.spawn<caf::detached>(aggregator, std::move(setup), std::move(ring));
}

}  // namespace troupe::actors
