// The engine under many threads and several "nodes" against the one-thread reference of model/.
#include "actors/train_engine.hpp"

#include <thread>

#include <doctest/doctest.h>

#include "actors/engine_setup.hpp"
#include "data/tiny.hpp"
#include "kernels/cpu/backend.hpp"
#include "model/step.hpp"

using namespace troupe;
using namespace troupe::actors;

namespace {

config::JobConfig small_job() {
  return config::parse_job("test",
                           "[data]\nsource = \"tiny\"\n[model]\nwidth = 32\ninner = 64\nheads = 2\n"
                           "encoder_layers = 1\ndecoder_layers = 1\nmax_length = 64\ncompute = \"f32\"\n"
                           "[training]\nsteps = 4\nslots = 4\n[evaluation]\nevery = 2\nslots = 2\n");
}

struct Fixture {
  std::shared_ptr<const data::Dataset> dataset = data::make_tiny_dataset();
  config::JobConfig job = small_job();
  scheduler::SlotPlan plan{4, 2, 2, 4};
  std::shared_ptr<kernels::Backend> backend = kernels::make_cpu_backend();
  Fixture() { job.model = complete_model(job, *dataset); }

  std::unique_ptr<TrainEngine> engine(uint32_t workers) const {
    auto model = model::make_model(job.model);
    const auto stream = backend->create_stream();
    auto state = model::initial_state(*backend, *stream, *model, uint64_t(job.seed));
    auto made = std::make_unique<TrainEngine>(backend, job, plan, std::move(model),
                                              std::move(state), workers);
    for (uint32_t i = 0; i < workers; ++i) made->open_worker(i);
    return made;
  }
  Batch batch(int64_t step, uint32_t slot) const {
    return plan.is_evaluation(slot)
               ? dataset->batch_of_pack(data::Split::valid, slot - plan.training)
               : dataset->slot_batch(uint64_t(job.seed), uint64_t(step), slot, plan.training);
  }
};

void share(TrainEngine& engine, const std::shared_ptr<SharedWork>& work) {
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < engine.workers(); ++i)
    threads.emplace_back([&, i] {
      engine.open_worker(i);  // each on its own thread
      work->run(engine.stream(i));
    });
  for (std::thread& thread : threads) thread.join();
}

StepOutcome run_step(const Fixture& fixture, TrainEngine& engine, int64_t step) {
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < engine.workers(); ++i)
    threads.emplace_back([&, i] {
      engine.open_worker(i);
      for (uint32_t slot = i; slot < fixture.plan.slots(step); slot += engine.workers())
        engine.run_slot(i, step, slot, fixture.batch(step, slot));
    });
  for (std::thread& thread : threads) thread.join();
  const comm::SumMeta sum = engine.own_sum();
  share(engine, engine.measure_work(false));
  share(engine, engine.apply_work(sum));
  share(engine, engine.pack_work());
  return engine.finish_commit(sum);
}

}  // namespace

TEST_CASE("an engine of three workers ends at the bits of the one-thread reference") {
  const Fixture fixture;
  const auto engine = fixture.engine(3);
  std::vector<double> losses;
  for (int64_t step = 0; step < 4; ++step)
    losses.push_back(run_step(fixture, *engine, step).training.mean_loss());

  const auto model = model::make_model(fixture.job.model);
  const auto stream = fixture.backend->create_stream();
  auto state = model::initial_state(*fixture.backend, *stream, *model, uint64_t(fixture.job.seed));
  const model::StepOptions options{uint64_t(fixture.job.seed), 4, int(fixture.job.bits),
                                   config::resolved_optimizer(fixture.job)};
  size_t at = 0;
  model::train_one_process(
      *fixture.backend, *model, options,
      [&](int64_t step, uint32_t slot) { return fixture.batch(step, slot); }, 4, state,
      [&](const model::StepResult& result) { CHECK(result.loss.mean_loss() == losses[at++]); });
  CHECK(engine->weights_digest(engine->state()) ==
        model::weights_digest(model->parameters(), state.weight_data()));
  CHECK(engine->state().chain == state.chain);
}

TEST_CASE("held-out slots are evaluated in the steps of the plan and change nothing else") {
  const Fixture fixture;
  const auto engine = fixture.engine(2);
  CHECK(run_step(fixture, *engine, 0).evaluation);
  CHECK_FALSE(run_step(fixture, *engine, 1).evaluation);
  const StepOutcome third = run_step(fixture, *engine, 2);
  REQUIRE(third.evaluation);
  CHECK(third.evaluation->tokens > 0);
  CHECK(engine->state().evaluation.last_step == 2);
  CHECK(run_step(fixture, *engine, 3).evaluation);  // the last step
}

TEST_CASE("a sum's integers survive the way through a ring's metadata") {
  const model::LossTotals training{1, 2, 3, 4}, evaluation{5, 6, 7, 8};
  comm::SumMeta sum = to_meta(training, evaluation, kernels::kSumOverflow);
  sum += to_meta(training, evaluation, kernels::kSumNotFinite);
  CHECK(training_totals(sum) == model::LossTotals{2, 4, 6, 8});
  CHECK(evaluation_totals(sum) == model::LossTotals{10, 12, 14, 16});
  CHECK(sum.flags == (kernels::kSumOverflow | kernels::kSumNotFinite));
}

TEST_CASE("a model that does not fit its data is refused") {
  const Fixture fixture;
  config::JobConfig job = small_job();
  job.model.vocabulary = 77;
  CHECK_THROWS_WITH_AS(complete_model(job, *fixture.dataset), doctest::Contains("model.vocabulary is 77"),
                       Error);
  job = small_job();
  job.model.max_length = 2;
  CHECK_THROWS_WITH_AS(complete_model(job, *fixture.dataset), doctest::Contains("model.max_length is 2"),
                       Error);
  job = small_job();
  job.model.family = model::Family::decoder;
  CHECK_THROWS_WITH_AS(complete_model(job, *fixture.dataset), doctest::Contains("model.family"), Error);
}

TEST_CASE("a state that has changed in memory is given to nobody") {
  const Fixture fixture;
  for (const int which : {0, 1, 2}) {
    const auto engine = fixture.engine(1);
    run_step(fixture, *engine, 0);
    CHECK_NOTHROW(engine->snapshot());
    const model::TrainState& state = engine->state();
    float* data = which == 0 ? state.weight_data() : which == 1 ? state.moment1_data() : state.moment2_data();
    reinterpret_cast<unsigned char*>(data + state.elements / 2)[2] ^= 1;
    CHECK_THROWS_WITH_AS(engine->snapshot(), doctest::Contains("has changed in this node's memory"), Error);
  }
}

TEST_CASE("a bit that flips in memory is found in the same step, by the name of its tensor") {
  const Fixture fixture;
  const auto engine = fixture.engine(2);
  run_step(fixture, *engine, 0);
  const model::TrainState& state = engine->state();
  const model::Parameter& parameter = engine->model().parameters().all()[3];
  REQUIRE(parameter.packed);
  const int64_t place = parameter.offset + parameter.rows * parameter.cols / 2;
  const auto flip = [](void* at) { *static_cast<unsigned char*>(at) ^= 4; };
  const auto finds = [&](const std::string& what) {
    const auto wanted = doctest::Contains((what + " of " + parameter.name).c_str());
    CHECK_THROWS_WITH_AS(engine->require_sound(), wanted, Error);
  };
  const auto commit_finds = [&](const std::string& what) {
    const auto wanted = doctest::Contains((what + " of " + parameter.name).c_str());
    CHECK_THROWS_WITH_AS(run_step(fixture, *engine, 1), wanted, Error);
  };
  share(*engine, engine->verify_work());
  CHECK_NOTHROW(engine->require_sound());
  SUBCASE("a weight") {
    flip(state.weight_data() + place);
    share(*engine, engine->verify_work());
    finds("a weight");
  }
  SUBCASE("a packed weight") {
    flip(const_cast<void*>(state.packed.views[3].data));
    share(*engine, engine->verify_work());
    finds("a packed weight");
  }
  SUBCASE("a weight, after its sum was given away") {
    flip(state.weight_data() + place);
    commit_finds("a weight");
  }
  SUBCASE("a first moment") {
    flip(state.moment1_data() + place);
    commit_finds("a first moment");
  }
  SUBCASE("a second moment") {
    flip(state.moment2_data() + place);
    commit_finds("a second moment");
  }
}

TEST_CASE("a probe is a hash of what this machine computes, and leaves no trace") {
  const Fixture fixture;
  const auto engine = fixture.engine(2);
  engine->probe(fixture.batch(0, 0));
  CHECK(engine->probed().size() == 32);
  for (uint32_t i = 0; i < 2; ++i) engine->open_worker(i);
  const auto untouched = fixture.engine(2);
  CHECK(run_step(fixture, *engine, 0).training == run_step(fixture, *untouched, 0).training);
  CHECK(engine->chain() == untouched->chain());

  const auto alone = fixture.engine(1);
  alone->probe(fixture.batch(0, 0));
  CHECK(alone->probed() == engine->probed());
  alone->probe(fixture.batch(0, 1));
  CHECK(alone->probed() != engine->probed());
}
