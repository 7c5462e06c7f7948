#include <chrono>
#include <semaphore>

#include <caf/scoped_actor.hpp>
#include <doctest/doctest.h>

#include "actors/engine_setup.hpp"
#include "actors/step_total.hpp"
#include "data/tiny.hpp"
#include "model/checkpoint.hpp"
#include "support.hpp"
#include "tests/support/process.hpp"

using namespace troupe;
using namespace troupe::actors;

namespace {

constexpr std::chrono::seconds kDeadline{60};

JobContextPtr context_of_small_job(const std::string& out) {
  auto context = std::make_shared<JobContext>(*test_context(1, 0, 3, 4));
  context->job =
      config::parse_job("test",
                        "[data]\nsource = \"tiny\"\n[model]\nwidth = 8\ninner = 16\nheads = 2\n"
                        "encoder_layers = 1\ndecoder_layers = 1\nmax_length = 64\ncompute = \"f32\"\n"
                        "[training]\nsteps = 3\nslots = 4\n[evaluation]\nevery = 0\n");
  context->job_text = config::canonical_text(context->job);
  auto services = std::make_shared<NodeServices>(*context->services);
  services->level = kernels::best_isa_level();
  context->services = std::move(services);
  context->out_folder = out;
  context->workers = 1;
  return context;
}

// Between a trainer on a thread of its own and the test.
struct Gate {
  std::shared_ptr<TrainEngine> engine;
  std::counting_semaphore<> came{0}, open{0};  // work has come; one piece of it may be done
};

trainer_actor spawn_trainer(caf::actor_system& system, Gate& gate) {
  return system.spawn<caf::detached>([&gate]() -> trainer_actor::behavior_type {
    return {[](const SlotSamples&) { return SlotDone{}; },
            [&gate](const ShareWork& share) {
              gate.came.release();
              CHECK(gate.open.try_acquire_for(kDeadline));
              share.work->run(gate.engine->stream(0));
              return WorkShared{};
            }};
  });
}

std::shared_ptr<const data::Dataset> dataset() {
  return data::make_tiny_dataset({.pairs = 100, .pack_tokens = 64});
}

// An aggregator at step 0 without a cluster, whose trainer does each piece of work when the gate lets it.
struct AggregatorAlone {
  explicit AggregatorAlone(const std::string& out)
      : context(context_of_small_job(out)),
        aggregator(spawn_aggregator(system, {context, {}}, std::make_shared<RingSession>(context))) {
    TakePart peers;
    peers.trainers = {trainer};
    self->send(aggregator, peers);
    self->request(aggregator, kDeadline, BuildEngine{dataset()})
        .receive([&](const EngineBuilt& built) { gate.engine = built.engine; }, no_error);
    gate.engine->open_worker(0);
  }
  ~AggregatorAlone() {
    for (const auto& actor : {caf::actor_cast<caf::actor>(trainer), caf::actor_cast<caf::actor>(aggregator)})
      caf::anon_send_exit(actor, caf::exit_reason::user_shutdown);
  }
  static void no_error(const caf::error& problem) { FAIL(to_string(problem)); }
  template <typename Message>
  auto ask(const Message& message) {
    return self->request(aggregator, kDeadline, message);
  }

  Gate gate;  // outlives the actors
  caf::actor_system_config config;
  caf::actor_system system{config};
  caf::scoped_actor self{system};
  JobContextPtr context;
  trainer_actor trainer = spawn_trainer(system, gate);
  aggregator_actor aggregator;  // without a supervisor: a failure is the error of what is asked for
};

std::shared_ptr<const std::vector<std::byte>> total_of_first_step(TrainEngine& engine) {
  StepTotal total;
  total.seal = {{{7, 0}, 0}, {{0, scheduler::SlotSet::first(4)}}, 3};
  total.sum.target_tokens = 1;
  total.total = engine.total();
  return std::make_shared<const std::vector<std::byte>>(to_bytes(total));
}

}  // namespace

TEST_CASE(
    "a final state that is asked for in the middle of a commit, or before its step, is the one after it") {
  const test::TemporaryFolder folder;
  AggregatorAlone node(folder / "out");
  auto of_step = node.ask(SaveFinal{false, 1});
  auto installed = node.ask(InstallTotal{total_of_first_step(*node.gate.engine)});
  REQUIRE(node.gate.came.try_acquire_for(kDeadline));  // the commit has begun
  auto saved = node.ask(SaveFinal{false});
  // The answer to this one says that the one before has been read.
  node.ask(InstallState{folder / "none"})
      .receive([](const Installed& none) { CHECK_FALSE(none.done); }, node.no_error);
  node.gate.open.release(3);  // the three works of a commit
  saved.receive([](const Saved& state) { CHECK(state.step == 1); }, node.no_error);
  of_step.receive([](const Saved& state) { CHECK(state.step == 1); }, node.no_error);
  installed.receive([](const Installed& done) { CHECK(done.step == 1); }, node.no_error);
}

TEST_CASE("a final state that is asked for before its step is that of a state taken from a peer as a whole") {
  const test::TemporaryFolder folder;
  const std::string file = folder / "state";
  std::string digest;
  {
    AggregatorAlone ahead(folder / "ahead");
    ahead.gate.open.release(3);
    ahead.ask(InstallTotal{total_of_first_step(*ahead.gate.engine)})
        .receive([](const Installed& done) { REQUIRE(done.step == 1); }, ahead.no_error);
    const TrainEngine& engine = *ahead.gate.engine;
    model::save_checkpoint(file, checkpoint_info(*ahead.context, engine.job(), *dataset()), engine.state());
    digest = engine.weights_digest(engine.state());
  }
  AggregatorAlone behind(folder / "behind");
  auto saved = behind.ask(SaveFinal{false, 1});
  auto installed = behind.ask(InstallState{file});
  REQUIRE(behind.gate.came.try_acquire_for(kDeadline));  // the state is in, what was summed is being cleared
  behind.gate.open.release();
  installed.receive(
      [](const Installed& done) {
        CHECK(done.done);
        CHECK(done.step == 1);
      },
      behind.no_error);
  saved.receive(
      [&](const Saved& state) {
        CHECK(state.step == 1);
        CHECK(state.weights_digest == digest);
      },
      behind.no_error);
}
