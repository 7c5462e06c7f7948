#include <chrono>
#include <semaphore>

#include <caf/scoped_actor.hpp>
#include <doctest/doctest.h>

#include "actors/engine_setup.hpp"
#include "actors/step_total.hpp"
#include "data/tiny.hpp"
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

std::vector<std::byte> total_of_first_step(TrainEngine& engine) {
  StepTotal total;
  total.seal = {{{7, 0}, 0}, {{0, scheduler::SlotSet::first(4)}}, 3};
  total.sum.target_tokens = 1;
  total.total = engine.total();
  return to_bytes(total);
}

}  // namespace

TEST_CASE(
    "a final state that is asked for in the middle of a commit, or before its step, is the one after it") {
  const test::TemporaryFolder folder;
  Gate gate;  // outlives the actors
  caf::actor_system_config config;
  caf::actor_system system{config};
  caf::scoped_actor self{system};
  const auto no_error = [](const caf::error& problem) { FAIL(to_string(problem)); };
  const supervisor_actor supervisor;  // none: a failure is the error that is asked for
  const RoleSetup setup{context_of_small_job(folder / "out"), supervisor};
  const aggregator_actor aggregator =
      spawn_aggregator(system, setup, std::make_shared<RingSession>(setup.context));
  TakePart peers;
  peers.trainers = {spawn_trainer(system, gate)};
  self->send(aggregator, peers);
  self->request(aggregator, kDeadline,
                BuildEngine{data::make_tiny_dataset({.pairs = 100, .pack_tokens = 64})})
      .receive([&](const EngineBuilt& built) { gate.engine = built.engine; }, no_error);
  gate.engine->open_worker(0);
  const auto total = std::make_shared<const std::vector<std::byte>>(total_of_first_step(*gate.engine));

  auto of_step = self->request(aggregator, kDeadline, SaveFinal{false, 1});
  auto installed = self->request(aggregator, kDeadline, InstallTotal{total});
  REQUIRE(gate.came.try_acquire_for(kDeadline));  // the commit has begun
  auto saved = self->request(aggregator, kDeadline, SaveFinal{false});
  // The answer to this one says that the one before has been read.
  self->request(aggregator, kDeadline, InstallState{folder / "none"})
      .receive([](const Installed& none) { CHECK_FALSE(none.done); }, no_error);
  gate.open.release(3);  // the three works of a commit
  saved.receive([](const Saved& state) { CHECK(state.step == 1); }, no_error);
  of_step.receive([](const Saved& state) { CHECK(state.step == 1); }, no_error);
  installed.receive([](const Installed& done) { CHECK(done.step == 1); }, no_error);
  for (const auto& actor :
       {caf::actor_cast<caf::actor>(peers.trainers[0]), caf::actor_cast<caf::actor>(aggregator)})
    caf::anon_send_exit(actor, caf::exit_reason::user_shutdown);
}
