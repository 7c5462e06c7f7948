#include <functional>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include "actors/engines/engine_setup.hpp"
#include "actors/engines/train_engine.hpp"
#include "actors/guarded.hpp"
#include "actors/roles/kept_totals.hpp"
#include "actors/roles/roles.hpp"
#include "actors/roles/step_total.hpp"
#include "actors/wire.hpp"

namespace troupe::actors {

namespace {

constexpr size_t kTotalBytesInMemoryMax = size_t{2} << 30;  // at the source and on their way there

// Whose failure ended a ring: of this node's own making are those that were asked for.
bool is_a_peers(const comm::PeerError& failure) {
  switch (failure.kind()) {
    case ErrorKind::peer_lost:
    case ErrorKind::timeout:
    case ErrorKind::corrupt:
    case ErrorKind::network:
      return true;
    default:
      return false;
  }
}

bool is_misconfigured(const comm::PeerError& failure) {
  return failure.kind() == ErrorKind::usage || failure.kind() == ErrorKind::security;
}

struct aggregator_state {
  aggregator_state() = default;
  static inline const char* name = "aggregator";
  using Self = aggregator_actor::stateful_pointer<aggregator_state>;

  RoleSetup setup;
  std::shared_ptr<RingSession> ring;
  std::shared_ptr<const data::Dataset> dataset;
  std::shared_ptr<TrainEngine> engine;
  TakePart peers;
  scheduler::View view;
  scheduler::Seal seal;  // of the step that is being reduced and committed, then of the one before
  comm::SumMeta sum;     // its total
  bool rounded = false;  // the engine's total is that of `seal` already
  bool committing = false;
  bool saving = false;  // a snapshot is on its way to disk
  bool keep_totals = false;
  TotalsInMemory totals_given{kTotalBytesInMemoryMax};
  std::vector<int64_t> states_wanted;
  std::vector<std::pair<SaveFinal, caf::typed_response_promise<Saved>>> finals_wanted;
  using Done = std::function<void(const std::shared_ptr<const StepOutcome>&)>;

  EngineBuilt build(Self self, const BuildEngine& from) {
    Beginning beginning = find_beginning(*setup.context);
    if (!beginning.passed_over.empty())
      self->send(setup.supervisor,
                 Publish{notice(*setup.context, fmt::format("passes over newer checkpoints: {}",
                                                            fmt::join(beginning.passed_over, "; ")))});
    dataset = from.dataset;
    engine = build_engine(*setup.context, *dataset, beginning);
    if (setup.context->services->drill) write_memory_map(*setup.context, *engine);
    return {engine, std::move(beginning.broken)};
  }

  // --- the ring ---

  void open(Self self, const scheduler::View& begins) {
    view = begins;
    if (!view.position(setup.context->rank())) return;
    const scheduler::Fence fence{view.ballot, view.step - 1};
    const bool lacks = view.total_source && engine->state().step < view.step;
    const bool well = try_ring(self, [&] {
      ring->connect(view);
      if (view.total_source) pass_total(lacks);
    });
    if (lacks) self->send(peers.member, TotalFetched{fence, well});
    take_up(self);
  }

  // R(step - 1) goes from who has it to who lacks it, by way of all.
  void pass_total(bool lacks) {
    std::vector<std::byte> bytes;
    if (*view.total_source == setup.context->rank()) bytes = to_bytes(seal, sum, engine->total());
    ring->broadcast(*view.total_source, bytes, step_total_bytes_max(engine->model().parameters().layout()));
    if (lacks) take_total(bytes);
  }

  void take_total(std::span<const std::byte> bytes) {
    StepTotal total = step_total_of(bytes);
    if (total.seal.fence.step != engine->state().step)
      throw error(ErrorKind::corrupt, "the total of step {} came to a state at step {}",
                  total.seal.fence.step, engine->state().step);
    engine->set_total(std::move(total.total));
    seal = std::move(total.seal);
    sum = total.sum;
    rounded = true;
  }

  // The sum's way begins while the last slots run.
  void feed(Self self, const Feed& start) {
    try_ring(self, [&] { ring->feed(engine, start.seal); });
    take_up(self);
  }

  // It counts only when the weights that it was computed with are still what they were.
  void reduce(Self self, const Reduce& start) {
    seal = start.seal;
    share_out(self, engine->verify_work(), [this, self] {
      require_sound();
      const bool well = try_ring(self, [&] { sum = ring->reduce(*engine, seal); });
      if (!well && !engine->exact())
        throw error(
            ErrorKind::peer_lost,
            "a sum of floats was cut off half-way and cannot be taken up again; go on from the newest "
            "checkpoint with --resume");
      rounded = !ring->alone();
      if (well)
        self->send(peers.member, Reduced{seal.fence});
      else
        self->send(peers.member, ReduceFailed{seal.fence});
      take_up(self);  // before the commit: the state is still that of this step
    });
  }

  void require_sound() try { engine->require_sound(); } catch (...) {
    ring->stop_fed();
    throw;
  }

  // False when the ring failed. Membership hears of it when it is a peer's failure.
  bool try_ring(Self self, const std::function<void()>& run) {
    try {
      run();
      return true;
    } catch (const comm::PeerError& failure) {
      // No other view would mend it, or there is none.
      if (is_misconfigured(failure) || (is_a_peers(failure) && !setup.context->elastic())) throw;
      if (is_a_peers(failure))
        self->send(peers.membership, RingBroken{view.ballot, failure.peer_rank(), failure.what()});
      spdlog::info("the ring of view {} has ended: {}", view.ballot.number, failure.what());
    } catch (const Error& failure) {
      if (failure.kind() != ErrorKind::cancelled) throw;
    }
    return false;
  }

  // --- the commit ---

  void commit(Self self, Done done) {
    committing = true;
    share_out(self, engine->measure_work(rounded), [this, self, done] {
      share_out(self, engine->apply_work(sum), [this, self, done] {
        share_out(self, engine->pack_work(), [this, self, done] {
          const auto outcome = std::make_shared<const StepOutcome>(engine->finish_commit(sum));
          committing = false;
          done(outcome);
          self->send(peers.evaluator, StepReport{outcome, seal, engine->chain()});
          offer(self);
          take_up(self);
        });
      });
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

  // --- what others are given of the state, while the next step's slots only read it ---

  void offer(Self self) {
    if (keep_totals && totals_given.have_room())
      self->send(peers.source,
                 TotalKept{seal.fence.step, totals_given.add(to_bytes(seal, sum, engine->total()))});
    else if (keep_totals)
      spdlog::warn("does not keep the total of step {}: those before it are still being written",
                   seal.fence.step);
    snapshot_if_due(self);
  }

  // What is asked of the state waits while it is written, and while a group of devices adds: a snapshot would
  // wait there for the slowest member, on the thread that alone can leave the group.
  void take_up(Self self) {
    if (committing || ring->adds_in_group()) return;
    for (const int64_t step : std::exchange(states_wanted, {})) give_state(self, step);
    save_finals(self);
  }

  void give_state(Self self, int64_t wanted) {
    const int64_t step = engine->state().step;
    if (wanted > step) return states_wanted.push_back(wanted);
    StateTaken taken{wanted, nullptr, step};
    if (wanted == step) taken.state = std::make_shared<const model::TrainState>(engine->snapshot());
    self->send(peers.source, taken);
  }

  void snapshot_if_due(Self self) {
    const config::JobConfig& job = setup.context->job;
    const int64_t step = engine->state().step;
    if (!setup.context->speaks() || job.checkpoint_every == 0 || step % job.checkpoint_every != 0) return;
    if (step >= job.steps) return;  // the final one is written at the end
    if (saving) {
      spdlog::warn("no checkpoint at step {}: the one before is still being written", step);
      return;
    }
    saving = true;
    self->request(peers.checkpointer, kWorkPatience,
                  SaveState{std::make_shared<const model::TrainState>(engine->snapshot()), false})
        .then([self](const Saved&) { self->state.saving = false; },
              report_silence(self, setup.supervisor, "checkpointer"));
  }

  // --- a state from a peer; REQUIRES that no slot runs ---

  // What came may be wrong, and the sender's fault: that is no failure of this node.
  caf::result<Installed> install(Self self, const std::string& what, const std::function<void()>& take,
                                 const std::function<void(std::function<void()>)>& work) {
    ring->stop_fed();
    take_up(self);
    try {
      take();
    } catch (const Error& problem) {
      spdlog::warn("{} from a peer is of no use: {}", what, problem.what());
      return Installed{false, false, engine->state().step, engine->chain()};
    }
    auto promise = self->make_response_promise<Installed>();
    work([this, promise]() mutable {
      promise.deliver(Installed{true, false, engine->state().step, engine->chain()});
    });
    return promise;
  }

  caf::result<Installed> install_state(Self self, const InstallState& from) {
    return install(
        self, "a state",
        [&] {
          load_into(*setup.context, *dataset, *engine, from.path);
          if (setup.context->services->drill) write_memory_map(*setup.context, *engine);
        },
        [this, self](std::function<void()> done) {
          share_out(self, engine->clear_work(), [this, self, done] {
            done();
            take_up(self);
          });
        });
  }

  caf::result<Installed> install_total(Self self, const InstallTotal& from) {
    return install(
        self, "a total", [&] { take_total(*from.bytes); },
        [this, self](std::function<void()> done) {
          commit(self, [done](const std::shared_ptr<const StepOutcome>&) { done(); });
        });
  }

  void clear(Self self) {
    ring->stop_fed();
    share_out(self, engine->clear_work(), [this, self] {
      self->send(peers.member, SumCleared{});
      take_up(self);
    });
  }

  // A node that has yet to catch up may hear that the job is done in the middle of a commit.
  caf::result<Saved> save_final(Self self, const SaveFinal& wanted) {
    auto promise = self->make_response_promise<Saved>();
    finals_wanted.emplace_back(wanted, promise);
    take_up(self);
    return promise;
  }

  void save_finals(Self self) {
    for (auto& [wanted, promise] : std::exchange(finals_wanted, {})) save_final(self, wanted, promise);
  }

  void save_final(Self self, const SaveFinal& wanted, caf::typed_response_promise<Saved> promise) {
    if (engine->state().step < wanted.step) {
      finals_wanted.emplace_back(wanted, promise);
      return;
    }
    const auto state = std::make_shared<const model::TrainState>(engine->snapshot());
    Saved saved{state->step, "", engine->weights_digest(*state)};
    if (!wanted.write) return deliver_reported(self, saved, promise);
    self->request(peers.checkpointer, kWorkPatience, SaveState{state, true})
        .then(
            [this, self, promise, saved](const Saved& written) mutable {
              saved.path = written.path;
              deliver_reported(self, saved, promise);
            },
            [promise](const caf::error& problem) mutable { promise.deliver(problem); });
  }

  // A job of a few steps may be saved before its clients have heard of any of them.
  void deliver_reported(Self self, const Saved& saved, caf::typed_response_promise<Saved> promise) {
    self->request(peers.evaluator, kReportPatience, FlushReports{})
        .then([promise, saved](const ReportsFlushed&) mutable { promise.deliver(saved); },
              [promise, saved](const caf::error& problem) mutable {
                spdlog::warn("the end of the job does not wait for its last reports: {}", to_string(problem));
                promise.deliver(saved);
              });
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
        return guarded_answer<EngineBuilt>(self, supervisor, [&] { return self->state.build(self, from); });
      },
      [self](const TakePart& peers) { self->state.peers = peers; },
      [self, supervisor](const scheduler::BeginView& begins) {
        guarded(self, supervisor, [&] { self->state.open(self, begins.view); });
      },
      [self, supervisor](const Feed& start) {
        guarded(self, supervisor, [&] { self->state.feed(self, start); });
      },
      [self, supervisor](const Reduce& start) {
        guarded(self, supervisor, [&] { self->state.reduce(self, start); });
      },
      [self, supervisor](const Commit&) {
        guarded(self, supervisor, [&] {
          self->state.commit(self, [self](const std::shared_ptr<const StepOutcome>& outcome) {
            self->send(self->state.peers.member, Committed{outcome->plan.step, self->state.engine->chain()});
          });
        });
      },
      [self, supervisor](const scheduler::ClearSum&) {
        guarded(self, supervisor, [&] { self->state.clear(self); });
      },
      [self, supervisor](const StateWanted& wanted) {
        guarded(self, supervisor, [&] {
          self->state.states_wanted.push_back(wanted.step);
          self->state.take_up(self);
        });
      },
      [self](const KeepTotals& wanted) { self->state.keep_totals = wanted.keep; },
      [self, supervisor](const InstallState& from) {
        return guarded_answer<Installed>(self, supervisor,
                                         [&] { return self->state.install_state(self, from); });
      },
      [self, supervisor](const InstallTotal& from) {
        return guarded_answer<Installed>(self, supervisor,
                                         [&] { return self->state.install_total(self, from); });
      },
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
