// The engines of the CPU and of the emulated device under many threads and as several "nodes", against the
// one-thread references of model/.
#include "comm/messages.hpp"
#include "kernels/cuda/emulated.hpp"
#include "model/device_trainer.hpp"
#include "tests/actors/engines/engine_fixture.hpp"

using namespace troupe;
using namespace troupe::testing;

TEST_CASE("an engine of three workers ends at the bits of the one-thread reference") {
  const Fixture fixture;
  const auto engine = fixture.engine(DeviceKind::cpu, 3);
  std::vector<double> losses;
  for (int64_t step = 0; step < 4; ++step)
    losses.push_back(run_step(fixture, *engine, step).training.mean_loss());

  const auto model = model::make_model(fixture.job.model);
  const auto stream = fixture.backend->create_stream();
  auto state = model::initial_state(*fixture.backend, *stream, *model, uint64_t(fixture.job.seed));
  size_t at = 0;
  model::train_one_process(
      *fixture.backend, *model, fixture.options(), fixture.batches(), 4, state,
      [&](const model::StepResult& result) { CHECK(result.loss.mean_loss() == losses[at++]); });
  CHECK(engine->weights_digest(engine->state()) ==
        model::weights_digest(model->parameters(), state.weight_data()));
  CHECK(engine->state().chain == state.chain);
}

TEST_CASE("an engine of an emulated device ends at the bits of a device that trains alone, near the CPU's") {
  const Fixture fixture;
  const auto engine = fixture.engine(DeviceKind::emulated), on_cpu = fixture.engine(DeviceKind::cpu);
  const auto stream = kernels::make_emulated_stream(kernels::ThreadOrder::backward);
  const auto model = model::make_model(fixture.job.model);
  model::DeviceTrainer alone(*stream, *model, fixture.options());
  for (int64_t step = 0; step < 2; ++step) {
    const double loss = run_step(fixture, *engine, step).training.mean_loss();
    CHECK(alone.step(fixture.batches()).loss.mean_loss() == loss);
    CHECK(run_step(fixture, *on_cpu, step).training.mean_loss() == doctest::Approx(loss).epsilon(1e-4));
  }
  CHECK(engine->weights_digest(engine->snapshot()) == alone.digest());
  CHECK(engine->state().chain == alone.state().chain);
}

TEST_CASE("blocks of the sum that slots are said to have passed are final while the slots run") {
  Fixture fixture;
  fixture.job.model.encoder_layers = fixture.job.model.decoder_layers = 4;
  const auto slots = scheduler::SlotSet::first(fixture.plan.slots(0));
  for (const DeviceKind kind : kinds()) {
    CAPTURE(int(kind));
    const auto engine = fixture.engine(kind, 2);
    REQUIRE(engine->sum_grows());
    const auto reduction = engine->exact_reduction();
    const kernels::BlockLayout& layout = *reduction.layout;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    CHECK_FALSE(engine->progress().wait(slots, layout.blocks(), std::chrono::milliseconds(0)));
    std::thread running([&] { run_slots(fixture, *engine, 0); });
    std::vector<int64_t> seen(reduction.accumulator.size());
    for (int64_t end = layout.blocks(); end > 0; --end) {
      while (!engine->progress().wait(slots, end - 1, std::chrono::milliseconds(5)))
        REQUIRE(std::chrono::steady_clock::now() < deadline);
      const auto block = layout.block(end - 1);
      engine->fetch_sum(end - 1, end);
      std::copy_n(reduction.accumulator.begin() + block.offset, block.count, seen.begin() + block.offset);
    }
    running.join();
    engine->fetch_sum(0, layout.blocks());
    CHECK(std::equal(seen.begin(), seen.end(), reduction.accumulator.begin()));
    CHECK(std::any_of(seen.begin(), seen.end(), [](int64_t value) { return value != 0; }));
    share(*engine, engine->clear_work());
    CHECK_FALSE(engine->progress().wait(slots, layout.blocks(), std::chrono::milliseconds(0)));
  }
}

TEST_CASE("held-out slots are evaluated in the steps of the plan and change nothing else") {
  const Fixture fixture;
  for (const DeviceKind kind : kinds()) {
    CAPTURE(int(kind));
    const auto engine = fixture.engine(kind, 2);
    CHECK(run_step(fixture, *engine, 0).evaluation);
    CHECK_FALSE(run_step(fixture, *engine, 1).evaluation);
    const StepOutcome third = run_step(fixture, *engine, 2);
    REQUIRE(third.evaluation);
    CHECK(third.evaluation->tokens > 0);
    CHECK(engine->state().evaluation.last_step == 2);
    CHECK(run_step(fixture, *engine, 3).evaluation);  // the last step
  }
}

TEST_CASE("slots shared out over two engines give the bits of one, on either device") {
  const Fixture fixture;
  for (const DeviceKind kind : kinds()) {
    CAPTURE(int(kind));
    const auto alone = fixture.engine(kind), one = fixture.engine(kind), other = fixture.engine(kind);
    for (int64_t step = 0; step < 2; ++step) {
      run_step(fixture, *alone, step);
      run_slots(fixture, *one, step, 0, 2);
      run_slots(fixture, *other, step, 1, 2);
      const comm::SumMeta sum = reduce(*one, *other);
      const StepOutcome outcome = commit(*one, sum, true);
      CHECK(commit(*other, sum, true).training == outcome.training);
      CHECK(one->chain() == alone->chain());
      CHECK(one->total() == alone->total());
    }
    CHECK(digest_of(*one) == digest_of(*alone));
    CHECK(digest_of(*other) == digest_of(*alone));
  }
}

TEST_CASE("a total that came from elsewhere brings an engine to the same state, on either device") {
  const Fixture fixture;
  for (const DeviceKind kind : kinds()) {
    CAPTURE(int(kind));
    const auto engine = fixture.engine(kind), behind = fixture.engine(kind);
    run_slots(fixture, *engine, 0);
    const comm::SumMeta sum = engine->own_sum();
    commit(*engine, sum, false);
    behind->set_total(engine->total());
    commit(*behind, sum, true);
    CHECK(digest_of(*behind) == digest_of(*engine));
    CHECK(behind->total() == engine->total());
    CHECK_THROWS_AS(behind->set_total({}), Error);
  }
}

TEST_CASE("a snapshot is the state for any engine, and training goes on from it with the same bits") {
  const Fixture fixture;
  for (const DeviceKind kind : kinds()) {
    CAPTURE(int(kind));
    const auto engine = fixture.engine(kind), other = fixture.engine(kind);
    run_step(fixture, *engine, 0);
    CHECK_FALSE(other->holds(engine->snapshot()));
    for (const DeviceKind any : kinds()) {
      const auto taker = fixture.engine(any);
      taker->replace_state(engine->snapshot());
      CHECK(taker->holds(engine->snapshot()));
      CHECK(digest_of(*taker) == digest_of(*engine));
    }
    other->replace_state(engine->snapshot());
    run_step(fixture, *engine, 1);
    run_step(fixture, *other, 1);
    CHECK(digest_of(*other) == digest_of(*engine));
  }
}

TEST_CASE("what was folded and then forgotten leaves no trace, on either device") {
  const Fixture fixture;
  for (const DeviceKind kind : kinds()) {
    CAPTURE(int(kind));
    const auto engine = fixture.engine(kind), untouched = fixture.engine(kind);
    run_slots(fixture, *engine, 0, 1, 2);
    share(*engine, engine->clear_work());
    CHECK(run_step(fixture, *engine, 0).training == run_step(fixture, *untouched, 0).training);
    CHECK(digest_of(*engine) == digest_of(*untouched));
  }
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
  for (const DeviceKind kind : {DeviceKind::cpu, DeviceKind::emulated})
    for (const int which : {0, 1, 2}) {
      CAPTURE(int(kind));
      const auto engine = fixture.engine(kind);
      run_step(fixture, *engine, 0);
      CHECK_NOTHROW(engine->snapshot());
      const model::TrainState& state = engine->state();
      float* data = which == 0   ? state.weight_data()
                    : which == 1 ? state.moment1_data()
                                 : state.moment2_data();
      reinterpret_cast<unsigned char*>(data + state.elements / 2)[2] ^= 1;
      CHECK_THROWS_WITH_AS(engine->snapshot(), doctest::Contains("has changed in this node's memory"), Error);
    }
}

TEST_CASE("a bit that flips in memory is found in the same step, by the name of its tensor") {
  const Fixture fixture;
  DeviceKind kind = DeviceKind::cpu;
  SUBCASE("of the CPU") {}
  SUBCASE("of the emulated device") {
    kind = DeviceKind::emulated;
  }
  const auto engine = fixture.engine(kind, 2);
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
  for (const DeviceKind kind : kinds()) {
    CAPTURE(int(kind));
    const auto engine = fixture.engine(kind, 2);
    engine->probe(fixture.batch(0, 0));
    CHECK(engine->probed().size() == 32);
    for (uint32_t i = 0; i < engine->workers(); ++i) engine->open_worker(i);
    const auto untouched = fixture.engine(kind, 2);
    CHECK(run_step(fixture, *engine, 0).training == run_step(fixture, *untouched, 0).training);
    CHECK(engine->chain() == untouched->chain());

    const auto alone = fixture.engine(kind);
    alone->probe(fixture.batch(0, 0));
    CHECK(alone->probed() == engine->probed());
    alone->probe(fixture.batch(0, 1));
    CHECK(alone->probed() != engine->probed());
  }
}

TEST_CASE(
    "fp8 products are refused by a CPU when its engine is made, and trained with by the emulated device") {
  Fixture fixture;
  fixture.job.model.width = 16;
  fixture.job.model.inner = 32;
  fixture.job.model.compute = kernels::DType::bf16;
  fixture.job.model.products = model::Products::fp8;
  CHECK_THROWS_WITH_AS(fixture.engine(DeviceKind::cpu),
                       doctest::Contains("a CPU does not multiply in fp8 (model.products = \"fp8\")"), Error);
  const auto engine = fixture.engine(DeviceKind::emulated);
  CHECK_FALSE(run_step(fixture, *engine, 0).plan.skipped);
}

TEST_CASE("tf32 products are refused by a CPU, and on a device train to other bits than those of f32") {
  Fixture fixture;
  const auto plain = fixture.engine(DeviceKind::emulated);
  const double loss = run_step(fixture, *plain, 0).training.mean_loss();
  fixture.job.model.products = model::Products::tf32;
  CHECK_THROWS_WITH_AS(fixture.engine(DeviceKind::cpu),
                       doctest::Contains("a CPU does not multiply in tf32 (model.products = \"tf32\")"),
                       Error);
  for (const DeviceKind kind : kinds()) {
    if (kind == DeviceKind::cpu) continue;
    const auto engine = fixture.engine(kind), again = fixture.engine(kind);
    const StepOutcome outcome = run_step(fixture, *engine, 0);
    CHECK_FALSE(outcome.plan.skipped);
    CHECK(outcome.training.mean_loss() == doctest::Approx(loss).epsilon(1e-3));
    run_step(fixture, *again, 0);
    CHECK(digest_of(*engine) == digest_of(*again));
    CHECK(digest_of(*engine) != digest_of(*plain));
  }
}

TEST_CASE("nodes with other cluster files have other fingerprints, however many nodes there are") {
  const Fixture fixture;
  const auto engine = fixture.engine(DeviceKind::cpu);
  JobContext context;
  const auto text = [&] { return fingerprint_text(context, *fixture.dataset, *engine); };
  for (const int64_t nodes : {2, 1024}) {
    context.cluster = config::local_cluster(nodes, 1);
    const std::string first = text();
    CHECK(first.size() < wire::kTextBytesMax);
    std::swap(context.cluster.nodes.front().name, context.cluster.nodes.back().name);
    CHECK(text() != first);
    CHECK(first.find(nodes == 2 ? "\nnodes=node0, node1\n" : "\nnodes=1024 with SHA-256 ") !=
          std::string::npos);
    const std::string turned = text();
    context.cluster.quorum = !context.cluster.quorum;
    CHECK(text() != turned);
  }
}
