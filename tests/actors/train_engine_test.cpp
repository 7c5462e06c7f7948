// The engines of the CPU and of the emulated device under many threads and as several "nodes", against the
// one-thread references of model/.
#include "actors/train_engine.hpp"

#include <barrier>
#include <thread>

#include <doctest/doctest.h>

#include "actors/cpu_engine.hpp"
#include "actors/device_engine.hpp"
#include "actors/devices.hpp"
#include "actors/engine_setup.hpp"
#include "data/tiny.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cuda/emulated.hpp"
#include "model/device_trainer.hpp"
#include "model/step.hpp"

using namespace troupe;
using namespace troupe::actors;

namespace {

config::JobConfig small_job() {
  return config::parse_job("test",
                           "[data]\nsource = \"tiny\"\n[model]\nwidth = 8\ninner = 16\nheads = 2\n"
                           "encoder_layers = 1\ndecoder_layers = 1\nmax_length = 64\ncompute = \"f32\"\n"
                           "[training]\nsteps = 4\nslots = 4\n[evaluation]\nevery = 2\nslots = 2\n");
}

using config::DeviceKind;

// What this machine can train on: the CPU, the emulated device, and a GPU where there is one.
std::vector<DeviceKind> find_kinds() {
  std::vector<DeviceKind> found = {DeviceKind::cpu, DeviceKind::emulated};
  try {
    require_device({DeviceKind::cuda, 0});
    found.push_back(DeviceKind::cuda);
  } catch (const Error& none) {
    MESSAGE("not tested on a GPU: ", std::string(none.what()));
  }
  return found;
}
const std::vector<DeviceKind>& kinds() {
  static const std::vector<DeviceKind> found = find_kinds();
  return found;
}

struct Fixture {
  std::shared_ptr<const data::Dataset> dataset = data::make_tiny_dataset({.pairs = 1000, .pack_tokens = 64});
  config::JobConfig job = small_job();
  scheduler::SlotPlan plan{4, 2, 2, 4};
  std::shared_ptr<kernels::Backend> backend = kernels::make_cpu_backend();
  Fixture() { job.model = complete_model(job, *dataset); }

  std::unique_ptr<TrainEngine> engine(DeviceKind kind, uint32_t workers = 1) const {
    auto model = model::make_model(job.model);
    auto state = model::first_state(kernels::allocate_host, *model, uint64_t(job.seed));
    std::unique_ptr<TrainEngine> made;
    if (kind == DeviceKind::cpu)
      made = std::make_unique<CpuEngine>(backend, job, plan, std::move(model), std::move(state), workers);
    else
      made = make_device_engine({kind, 0}, job, plan, std::move(model), state);
    for (uint32_t i = 0; i < made->workers(); ++i) made->open_worker(i);
    return made;
  }
  // Of a group of emulated devices.
  std::unique_ptr<TrainEngine> member_of(std::unique_ptr<comm::DeviceGroup> group) const {
    auto model = model::make_model(job.model);
    const auto state = model::first_state(kernels::allocate_host, *model, uint64_t(job.seed));
    const auto open = [] { return kernels::make_emulated_stream(kernels::ThreadOrder::forward); };
    return std::make_unique<DeviceEngine>(EngineDevice{open(), open(), std::move(group), "a device"}, job,
                                          plan, std::move(model), state);
  }
  model::StepOptions options() const {
    return {uint64_t(job.seed), 4, int(job.bits), config::resolved_optimizer(job)};
  }
  model::BatchSource batches() const {
    return [this](int64_t step, uint32_t slot) { return batch(step, slot); };
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

// Slots first, first + of, ... of the step.
void run_slots(const Fixture& fixture, TrainEngine& engine, int64_t step, uint32_t first = 0,
               uint32_t of = 1) {
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < engine.workers(); ++i)
    threads.emplace_back([&, i] {
      engine.open_worker(i);
      for (uint32_t slot = first + of * i; slot < fixture.plan.slots(step); slot += of * engine.workers())
        engine.run_slot(i, step, slot, fixture.batch(step, slot));
    });
  for (std::thread& thread : threads) thread.join();
}

StepOutcome commit(TrainEngine& engine, const comm::SumMeta& sum, bool reduced) {
  share(engine, engine.measure_work(reduced));
  share(engine, engine.apply_work(sum));
  share(engine, engine.pack_work());
  return engine.finish_commit(sum);
}

StepOutcome run_step(const Fixture& fixture, TrainEngine& engine, int64_t step) {
  run_slots(fixture, engine, step);
  return commit(engine, engine.own_sum(), false);
}

// What a ring of two leaves with both.
comm::SumMeta reduce(TrainEngine& one, TrainEngine& other) {
  std::vector<comm::ExactReduction> parts = {one.exact_reduction(), other.exact_reduction()};
  const kernels::BlockLayout& layout = *parts[0].layout;
  const int64_t middle = layout.blocks() / 2;
  for (TrainEngine* engine : {&one, &other}) {
    engine->fetch_sum(middle, layout.blocks());
    engine->fetch_sum(0, middle);
  }
  std::vector<int64_t> sum(parts[0].accumulator.begin(), parts[0].accumulator.end());
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += parts[1].accumulator[i];
  for (const comm::ExactReduction& part : parts)
    kernels::round_total(layout, sum, part.rounding, 0, layout.blocks(), *part.total);
  comm::SumMeta meta = one.own_sum();
  return meta += other.own_sum();
}

// Two threads of this process as the devices of a group.
struct Meeting {
  std::barrier<> both{2};
  std::mutex mutex;
  std::vector<int64_t> sums;
};
class GroupOfTwo final : public comm::DeviceGroup {
 public:
  explicit GroupOfTwo(std::shared_ptr<Meeting> meeting) : meeting_(std::move(meeting)) {}
  std::string place() const override { return "here"; }
  std::string new_id() const override { return "id"; }
  void join(const std::string&, size_t, size_t, std::shared_ptr<const std::atomic<bool>>,
            comm::Deadline) override {}
  void add(kernels::DeviceRuntime& runtime, int64_t* values, int64_t count, comm::Deadline) override {
    std::vector<int64_t> own(static_cast<size_t>(count));
    runtime.copy_out(own.data(), values, own.size() * sizeof(int64_t));
    {
      const std::lock_guard lock(meeting_->mutex);
      meeting_->sums.resize(own.size());
      for (size_t i = 0; i < own.size(); ++i) meeting_->sums[i] += own[i];
    }
    meeting_->both.arrive_and_wait();
    runtime.copy_in(values, meeting_->sums.data(), own.size() * sizeof(int64_t));
    meeting_->both.arrive_and_wait();
    {
      const std::lock_guard lock(meeting_->mutex);
      meeting_->sums.clear();
    }
    meeting_->both.arrive_and_wait();
  }
  void wait(kernels::DeviceRuntime& runtime, comm::Deadline) override { runtime.synchronize(); }
  void leave() override {}

 private:
  std::shared_ptr<Meeting> meeting_;
};

std::string digest_of(TrainEngine& engine) {
  const auto digest = model::state_digest(engine.snapshot());
  return {digest.begin(), digest.end()};
}

}  // namespace

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

TEST_CASE("devices that add in a group of their own give the bits of one, and keep their own sums") {
  const Fixture fixture;
  const auto alone = fixture.engine(DeviceKind::emulated);
  const auto meeting = std::make_shared<Meeting>();
  std::vector<std::unique_ptr<TrainEngine>> members;
  for (int i = 0; i < 2; ++i) members.push_back(fixture.member_of(std::make_unique<GroupOfTwo>(meeting)));
  for (int64_t step = 0; step < 2; ++step) {
    run_step(fixture, *alone, step);
    std::vector<comm::SumMeta> sums(2);
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < 2; ++i) run_slots(fixture, *members[i], step, i, 2);
    for (size_t i = 0; i < 2; ++i)
      threads.emplace_back([&, i] {
        for (int again = 0; again < 2; ++again)  // as after a view that was given up
          sums[i] = members[i]->reduce_in_group(2, comm::deadline_in_ms(60'000));
      });
    for (std::thread& thread : threads) thread.join();
    CHECK(sums[0] == sums[1]);
    for (const auto& member : members) {
      commit(*member, sums[0], true);
      CHECK(member->chain() == alone->chain());
      CHECK(member->total() == alone->total());
    }
  }
  for (const auto& member : members) CHECK(digest_of(*member) == digest_of(*alone));
}

TEST_CASE("a group is formed of devices that are apart and add in the same way") {
  using Places = std::vector<std::string>;
  CHECK(comm::can_form_group(Places{"a NCCL 1", "b NCCL 1"}));
  CHECK_FALSE(comm::can_form_group(Places{}));
  CHECK_FALSE(comm::can_form_group(Places{"a NCCL 1", ""}));
  CHECK_FALSE(comm::can_form_group(Places{"a NCCL 1", "a NCCL 1"}));  // two processes on one GPU
  CHECK_FALSE(comm::can_form_group(Places{"a NCCL 1", "b NCCL 2"}));
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
