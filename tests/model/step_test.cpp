// What a step promises: the same bits in whatever order and cut its parts are done, stopped and resumed or
// not.
#include "model/step.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "kernels/accumulator.hpp"
#include "kernels/base/random.hpp"
#include "kernels/cpu/backend.hpp"
#include "model/checkpoint.hpp"
#include "model/parameters.hpp"
#include "tests/model/support.hpp"

using namespace troupe;
using namespace troupe::model;
using namespace troupe::testing;

namespace {

std::unique_ptr<kernels::Backend> cpu() {
  return kernels::make_cpu_backend();
}

// A copying task: the target is the source.
Batch copy_task(const ModelConfig& config, int64_t step, uint32_t slot) {
  Batch batch = random_batch(config, {6, 6, 7}, mix64(uint64_t(step), slot));
  batch.target_in.lengths = batch.source.lengths;
  batch.target_tokens = 0;
  for (size_t b = 0; b < 6; ++b)
    for (size_t t = 0; t < 7; ++t) {
      const size_t length = size_t(batch.source.lengths[b]);
      const auto word = [&](size_t at) { return batch.source.ids[b * 6 + at]; };
      const size_t cell = b * 7 + t;
      batch.target_in.ids[cell] = t == 0 ? config.bos_id : t <= length ? word(t - 1) : config.pad_id;
      batch.target_out[cell] = t < length ? word(t) : t == length ? config.eos_id : Batch::kIgnore;
      batch.target_tokens += t <= length ? 1 : 0;
      if (t == length) batch.target_in.lengths[b] = int32_t(length + 1);
    }
  return batch;
}

StepOptions options_for(int bits = kernels::kFullBits) {
  StepOptions options;
  options.seed = 17;
  options.slots = 4;
  options.bits = bits;
  options.optimizer.weight_decay = 0.01f;
  options.optimizer.schedule.peak = 4e-3;
  options.optimizer.schedule.warmup_steps = 10;
  return options;
}

struct Trainer {
  ModelConfig config;
  Subject subject;
  StepOptions options;
  std::vector<StepResult> results;

  explicit Trainer(const ModelConfig& model_config, int bits = kernels::kFullBits)
      : config(model_config), subject(cpu(), model_config), options(options_for(bits)) {}

  void train(int64_t end) {
    train_one_process(
        *subject.backend, *subject.model, options,
        [&](int64_t step, uint32_t slot) { return copy_task(config, step, slot); }, end, subject.state,
        [&](const StepResult& result) { results.push_back(result); });
  }
};

ModelConfig dropped(kernels::DType type) {
  ModelConfig config = tiny_config();
  config.dropout = 0.1f;
  config.compute = type;
  return config;
}

// The total of one step, its slots folded in the given order.
kernels::RoundedTotal total_of(Subject& subject, const std::vector<uint32_t>& order) {
  const auto& layout = subject.model->parameters().layout();
  kernels::ExactAccumulator accumulator(layout);
  for (uint32_t slot : order) {
    const Batch batch = copy_task(subject.model->config(), 5, slot);
    kernels::ExactSink sink(accumulator, {kernels::kFullBits, int(order.size()), 0});
    kernels::Arena arena = arena_for(*subject.backend, *subject.model, batch, true);
    subject.model->train_slot(*subject.stream, arena, subject.state.view(), batch, {17, 5, slot}, 0.1f, sink);
    REQUIRE(sink.flags() == kernels::kSumClean);
  }
  kernels::RoundedTotal total;
  total.resize(layout);
  kernels::round_total(layout, accumulator.values(), {}, 0, layout.blocks(), total);
  return total;
}

}  // namespace

TEST_CASE("the total of a step is the same bits in whatever order its slots are folded") {
  for (auto type : {kernels::DType::f32, kernels::DType::bf16}) {
    Subject subject(cpu(), dropped(type));
    CHECK(total_of(subject, {0, 1, 2, 3, 4}) == total_of(subject, {3, 0, 4, 2, 1}));
    CHECK_FALSE(total_of(subject, {0, 1, 2, 3, 4}) == total_of(subject, {0, 1, 2, 3, 5}));
  }
}

TEST_CASE("a commit is the same bits in whatever order its ranges are done") {
  ModelConfig config = dropped(kernels::DType::f32);
  config.vocabulary = 2000;  // several ranges
  Subject straight(cpu(), config), shuffled(cpu(), config);
  const auto total = total_of(straight, {0, 1, 2});
  const OptimizerConfig optimizer = options_for().optimizer;
  commit_step(*straight.stream, optimizer, *straight.model, total, 100, 0, straight.state);

  const ParameterTable& table = shuffled.model->parameters();
  const int64_t ranges = commit_ranges(table.layout());
  REQUIRE(ranges > 3);
  CommitMeasures measures(table.layout());
  for (int64_t r = ranges; r-- > 0;) measure_range(*shuffled.stream, table.layout(), total, r, measures);
  const StepPlan plan = begin_step(optimizer, shuffled.state, measures, 100, 0);
  for (int64_t r = ranges; r-- > 0;)
    apply_range(*shuffled.stream, plan, table, total, r, shuffled.state.arrays());
  for (size_t i = table.all().size(); i-- > 0;) pack_parameter(*shuffled.stream, table, i, shuffled.state);
  finish_step(plan, measures, shuffled.state);
  CHECK(state_digest(straight.state) == state_digest(shuffled.state));
}

TEST_CASE("threads that share slots and commits give the same bits as one") {
  ModelConfig config = dropped(kernels::DType::bf16);
  config.vocabulary = 1000;
  Trainer alone(config);
  alone.train(3);

  Subject shared(cpu(), config);
  const ParameterTable& table = shared.model->parameters();
  const StepOptions options = options_for();
  kernels::ExactAccumulator accumulator(table.layout());
  kernels::RoundedTotal total;
  total.resize(table.layout());
  // Runs work(item, stream) for every item, on three threads that take items as they come.
  const auto share = [&](int64_t items, auto&& work) {
    std::atomic<int64_t> next{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&] {
        const auto stream = shared.backend->create_stream();
        for (int64_t item; (item = next.fetch_add(1)) < items;) work(item, *stream);
      });
    for (std::thread& thread : threads) thread.join();
  };
  for (int64_t step = 0; step < 3; ++step) {
    accumulator.clear();
    std::atomic<int64_t> tokens{0};
    share(options.slots, [&](int64_t slot, kernels::Stream& stream) {
      const Batch batch = copy_task(config, step, uint32_t(slot));
      kernels::Arena arena = arena_for(*shared.backend, *shared.model, batch, true);
      kernels::ExactSink sink(accumulator,
                              {options.bits, options.slots, fold_key(options.seed, step, uint32_t(slot))});
      tokens +=
          shared.model
              ->train_slot(stream, arena, shared.state.view(), batch, {options.seed, step, uint32_t(slot)},
                           options.optimizer.label_smoothing, sink)
              .tokens;
    });
    const int64_t ranges = commit_ranges(table.layout());
    CommitMeasures measures(table.layout());
    kernels::round_total(table.layout(), accumulator.values(), {options.bits, round_key(options.seed, step)},
                         0, table.layout().blocks(), total);
    share(ranges, [&](int64_t r, kernels::Stream& stream) {
      measure_range(stream, table.layout(), total, r, measures);
    });
    const StepPlan plan = begin_step(options.optimizer, shared.state, measures, tokens, 0);
    share(ranges, [&](int64_t r, kernels::Stream& stream) {
      apply_range(stream, plan, table, total, r, shared.state.arrays());
    });
    share(int64_t(table.all().size()), [&](int64_t i, kernels::Stream& stream) {
      pack_parameter(stream, table, size_t(i), shared.state);
    });
    finish_step(plan, measures, shared.state);
  }
  CHECK(state_digest(shared.state) == state_digest(alone.subject.state));
}

TEST_CASE("a flagged or empty step is skipped: it counts, and nothing else changes") {
  Trainer trainer(tiny_config());
  trainer.train(2);
  TrainState& state = trainer.subject.state;
  const auto& table = trainer.subject.model->parameters();
  const std::string weights = weights_digest(table, state.weight_data());
  const auto moments = std::vector<float>(state.moment1_data(), state.moment1_data() + state.elements);
  const auto chain = state.chain;
  const auto total = total_of(trainer.subject, {0, 1});
  for (auto [tokens, flags] :
       {std::pair<int64_t, uint32_t>{50, kernels::kSumNotFinite}, {50, kernels::kSumOverflow}, {0, 0}}) {
    const StepPlan plan = commit_step(*trainer.subject.stream, trainer.options.optimizer,
                                      *trainer.subject.model, total, tokens, flags, state);
    CHECK(plan.skipped);
  }
  CHECK(weights_digest(table, state.weight_data()) == weights);
  CHECK(std::equal(moments.begin(), moments.end(), state.moment1_data()));
  CHECK(state.step == 5);
  CHECK(state.updates == 2);
  CHECK(state.skipped == 3);
  CHECK(state.chain != chain);
}

TEST_CASE("weights that are not finite skip every step from then on instead of spreading") {
  Trainer trainer(tiny_config());
  trainer.subject.state.weight_data()[3] = std::numeric_limits<float>::quiet_NaN();
  pack_state(*trainer.subject.backend, *trainer.subject.stream, *trainer.subject.model,
             trainer.subject.state);
  trainer.train(2);
  CHECK(trainer.subject.state.skipped == 2);
  CHECK((trainer.results[0].plan.flags & kernels::kSumNotFinite) != 0);
}

TEST_CASE("clipping bounds the norm of the applied gradient") {
  Trainer trainer(tiny_config());
  const auto total = total_of(trainer.subject, {0, 1});
  const auto& layout = trainer.subject.model->parameters().layout();
  CommitMeasures measures(layout);
  for (int64_t r = 0; r < commit_ranges(layout); ++r)
    measure_range(*trainer.subject.stream, layout, total, r, measures);
  OptimizerConfig optimizer = options_for().optimizer;
  optimizer.clip_norm = 0;
  const StepPlan free = begin_step(optimizer, trainer.subject.state, measures, 40, 0);
  CHECK(double(free.adamw.gradient_scale) == doctest::Approx(1.0 / 40));
  optimizer.clip_norm = float(free.gradient_norm / 4);
  const StepPlan clipped = begin_step(optimizer, trainer.subject.state, measures, 40, 0);
  CHECK(double(clipped.adamw.gradient_scale) == doctest::Approx(1.0 / 160));
  optimizer.clip_norm = float(free.gradient_norm * 2);
  CHECK(begin_step(optimizer, trainer.subject.state, measures, 40, 0).adamw.gradient_scale ==
        free.adamw.gradient_scale);
}

TEST_CASE("stopped and resumed from a checkpoint, training gives the same bits as if it never had stopped") {
  for (auto [type, bits] : {std::pair{kernels::DType::bf16, 24}, {kernels::DType::f32, 8}}) {
    Trainer straight(dropped(type), bits), resumed(dropped(type), bits);
    straight.train(9);
    TemporaryFolder folder;
    for (int64_t stop : {2, 5, 9}) {
      resumed.train(stop);
      CheckpointInfo info;
      info.model = resumed.config;
      info.optimizer = resumed.options.optimizer;
      const auto path = checkpoint_path(folder.path(), stop, "a");
      save_checkpoint(path, info, resumed.subject.state);
      resumed.subject.state = load_checkpoint(path, *resumed.subject.backend).state;
      pack_state(*resumed.subject.backend, *resumed.subject.stream, *resumed.subject.model,
                 resumed.subject.state);
    }
    CHECK(state_digest(resumed.subject.state) == state_digest(straight.subject.state));
    CHECK(resumed.subject.state.chain == straight.subject.state.chain);
  }
}

TEST_CASE("a tiny model learns to copy") {
  for (auto [type, bits] :
       {std::pair{kernels::DType::f32, 24}, {kernels::DType::bf16, 24}, {kernels::DType::bf16, 8}}) {
    ModelConfig config = tiny_config();
    config.width = 32;
    config.inner = 64;
    config.compute = type;
    Trainer trainer(config, bits);
    trainer.options.optimizer.label_smoothing = 0;
    trainer.options.optimizer.schedule.peak = 1e-2;
    trainer.options.optimizer.schedule.warmup_steps = 40;
    trainer.train(500);
    const LossTotals held_out = evaluate_one_process(
        *trainer.subject.backend, *trainer.subject.model, trainer.subject.state.view(),
        [&](int64_t, uint32_t slot) { return copy_task(trainer.config, 1000000, slot); }, 8, 0);
    const double accuracy = double(held_out.correct) / double(held_out.tokens);
    MESSAGE("bits " << bits << ": loss " << held_out.mean_nll() << ", " << 100 * accuracy << " % right");
    CHECK(accuracy > 0.9);
    CHECK(trainer.results.front().loss.mean_loss() > 3);
  }
}

TEST_CASE("the held-out losses of a run are compared exactly") {
  EvaluationState state;
  state.record(10, {100, 90, 10, 1});
  CHECK(state.best_step == 10);
  state.record(20, {100, 180, 20, 1});  // the same mean is not better
  CHECK(state.best_step == 10);
  CHECK(state.without_better == 1);
  state.record(30, {100, 179, 20, 1});
  CHECK(state.best_step == 30);
  CHECK(state.without_better == 0);
  CHECK(state.last_step == 30);
}

TEST_CASE("losses add up as integers, whatever their order") {
  const kernels::LossSums slots[] = {{1.1, 1.0, 3, 1}, {2.7e6, 2.5e6, 4, 2}, {0.3, 0.2, 5, 0}};
  LossTotals forward, backward;
  for (int i = 0; i < 3; ++i) forward.add(slots[i]);
  for (int i = 3; i-- > 0;) backward.add(slots[i]);
  CHECK(forward == backward);
  CHECK(forward.mean_loss() == doctest::Approx((1.1 + 2.7e6 + 0.3) / 12));
}

TEST_CASE("what diverges has a large loss, whatever it diverges to, and no sum of slots overflows") {
  for (const double loss : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                            1e35, 2.0 * (int64_t{1} << 33)}) {
    CAPTURE(loss);
    LossTotals totals;
    for (int slot = 0; slot < 1024; ++slot) totals.add({loss, loss, 1, 0});
    CHECK(totals.mean_loss() == LossTotals::kSlotMax);
    CHECK(totals.mean_nll() == LossTotals::kSlotMax);
    LossTotals report;  // of many steps
    for (int step = 0; step < 9; ++step) report += totals;
    CHECK(report.mean_loss() > 0.5 * LossTotals::kSlotMax);
  }
}
