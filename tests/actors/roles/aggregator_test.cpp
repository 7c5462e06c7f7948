#include <chrono>
#include <semaphore>

#include <caf/scoped_actor.hpp>
#include <doctest/doctest.h>

#include "actors/engines/engine_setup.hpp"
#include "actors/roles/step_total.hpp"
#include "data/tiny.hpp"
#include "model/checkpoint.hpp"
#include "tests/actors/support.hpp"
#include "tests/actors/two_nodes.hpp"
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

// What a source on the pool has been given.
struct Given {
  std::vector<int64_t> states;  // their steps; -1: none, as it was past
  std::counting_semaphore<> came{0}, asked{0};
};

source_actor spawn_source(caf::actor_system& system, Given& given) {
  return system.spawn([&given]() -> source_actor::behavior_type {
    return {[](const Post&) {},
            [&given](const StateTaken& taken) {
              given.states.push_back(taken.state ? taken.state->step : -1);
              given.came.release();
            },
            [](const TotalKept&) {}, [&given](Tick) { given.asked.release(); }};
  });
}

std::shared_ptr<const data::Dataset> dataset() {
  return data::make_tiny_dataset({.pairs = 100, .pack_tokens = 64});
}

// An aggregator at step 0 without a cluster, or with a ring that others have fed, whose trainer does each
// piece of work when the gate lets it.
struct AggregatorAlone {
  explicit AggregatorAlone(const std::string& out, std::shared_ptr<RingSession> ring = nullptr)
      : context(context_of_small_job(out)),
        aggregator(spawn_aggregator(system, {context, {}},
                                    ring ? std::move(ring) : std::make_shared<RingSession>(context))) {
    TakePart peers;
    peers.trainers = {trainer};
    peers.source = source;
    self->send(aggregator, peers);
    self->request(aggregator, kDeadline, BuildEngine{dataset()})
        .receive([&](const EngineBuilt& built) { gate.engine = built.engine; }, no_error);
    gate.engine->open_worker(0);
  }
  ~AggregatorAlone() {
    for (const auto& actor : {caf::actor_cast<caf::actor>(trainer), caf::actor_cast<caf::actor>(source),
                              caf::actor_cast<caf::actor>(aggregator)})
      caf::anon_send_exit(actor, caf::exit_reason::user_shutdown);
  }
  static void no_error(const caf::error& problem) { FAIL(to_string(problem)); }
  template <typename Message>
  auto ask(const Message& message) {
    return self->request(aggregator, kDeadline, message);
  }
  // What the aggregator has given before this is read.
  std::vector<int64_t> states_so_far() {
    self->send(source, Tick{});
    REQUIRE(given.asked.try_acquire_for(kDeadline));
    return given.states;
  }

  Gate gate;  // outlives the actors
  Given given;
  caf::actor_system_config config;
  caf::actor_system system{config};
  caf::scoped_actor self{system};
  JobContextPtr context;
  trainer_actor trainer = spawn_trainer(system, gate);
  source_actor source = spawn_source(system, given);
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

TEST_CASE("what is asked of the state while a group of devices adds waits for the end of the group") {
  const test::TemporaryFolder folder;
  const testing::Fixture fixture;
  testing::TwoNodes nodes(fixture, testing::Way::group);
  nodes.begin_view(1);
  nodes.run_and_feed(0);
  const testing::TestNode& first = nodes.nodes[0];
  AggregatorAlone node(folder / "out", first.session);
  node.self->send(node.aggregator, StateWanted{0});
  SUBCASE("which a reduction finds to be of a view that is over") {
    auto saved = node.ask(SaveFinal{false});
    node.self->send(node.aggregator, Reduce{nodes.seal(0)});
    REQUIRE(node.gate.came.try_acquire_for(kDeadline));  // it has read all three, and checks its weights
    CHECK(node.states_so_far().empty());
    CHECK(first.group->left == 0);
    first.session->supersede({2, 0});
    node.gate.open.release();
    saved.receive([](const Saved& state) { CHECK(state.step == 0); }, node.no_error);
  }
  SUBCASE("which the next question finds to be of a view that is over") {
    first.session->supersede({2, 0});
    node.ask(SaveFinal{false}).receive([](const Saved& state) { CHECK(state.step == 0); }, node.no_error);
  }
  SUBCASE("which a sum that is dropped ends") {
    node.self->send(node.aggregator, scheduler::ClearSum{});
    REQUIRE(node.gate.came.try_acquire_for(kDeadline));
    CHECK(node.states_so_far().empty());
    node.gate.open.release();
  }
  REQUIRE(node.given.came.try_acquire_for(kDeadline));
  CHECK(node.given.states == std::vector<int64_t>{0});
  CHECK(first.group->left == 1);
}
