// A whole model on the emulated device, kernel by kernel, beside the CPU: what single operations cannot show.
#include "model/device_trainer.hpp"

#include <cstring>

#include <doctest/doctest.h>

#include "kernels/base/random.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cuda/emulated.hpp"
#include "tests/model/support.hpp"

using namespace troupe;
using namespace troupe::model;
using namespace troupe::testing;

namespace {

constexpr int kSteps = 2;

StepOptions options_for(int bits) {
  StepOptions options;
  options.seed = 11;
  options.slots = 2;
  options.bits = bits;
  options.optimizer.weight_decay = 0.1f;
  options.optimizer.schedule.peak = 1e-2;
  options.optimizer.schedule.warmup_steps = 1;
  return options;
}

ModelConfig config_for(Family family, kernels::DType compute) {
  ModelConfig config = family == Family::decoder ? gpt2_config(2, 32, 2, 61, 24) : tiny_config();
  config.compute = compute;
  config.dropout = config.attention_dropout = 0.1f;
  return config;
}

BatchSource batches_for(const ModelConfig& config) {
  return [config](int64_t step, uint32_t slot) {
    return random_batch(config, {2, 9, 11}, mix64(uint64_t(step), slot));
  };
}

struct Run {
  std::vector<float> weights;
  std::vector<double> losses;
};

Run on_cpu(const ModelConfig& config, const StepOptions& options) {
  const auto backend = kernels::make_cpu_backend();
  const auto stream = backend->create_stream();
  const auto model = make_model(config);
  TrainState state = initial_state(*backend, *stream, *model, options.seed);
  Run run;
  train_one_process(*backend, *model, options, batches_for(config), kSteps, state,
                    [&](const StepResult& r) { run.losses.push_back(r.loss.mean_loss()); });
  run.weights.assign(state.weight_data(), state.weight_data() + state.elements);
  return run;
}

Run on_device(const ModelConfig& config, const StepOptions& options, kernels::ThreadOrder order) {
  const auto stream = kernels::make_emulated_stream(order);
  const auto model = make_model(config);
  DeviceTrainer trainer(*stream, *model, options);
  Run run;
  for (int step = 0; step < kSteps; ++step) {
    const StepResult result = trainer.step(batches_for(config));
    CHECK(!result.plan.skipped);
    run.losses.push_back(result.loss.mean_loss());
  }
  CHECK(trainer.next_step() == kSteps);
  run.weights = trainer.weights();
  return run;
}

}  // namespace

TEST_CASE(
    "two steps on an emulated device follow the CPU, and are the same bits in any order of its threads") {
  const auto cpu_stream =
      kernels::make_cpu_backend()->create_stream();  // sets this thread's floating-point state
  for (const Family family : {Family::encoder_decoder, Family::decoder})
    for (const auto compute : {kernels::DType::f32, kernels::DType::bf16}) {
      CAPTURE(int(family));
      CAPTURE(to_string(compute));
      const int bits = compute == kernels::DType::f32 ? 24 : 8;
      const ModelConfig config = config_for(family, compute);
      const StepOptions options = options_for(bits);
      const Run cpu = on_cpu(config, options),
                device = on_device(config, options, kernels::ThreadOrder::forward);
      const bool exact = compute == kernels::DType::f32;
      for (int step = 0; step < kSteps; ++step)
        CHECK(device.losses[size_t(step)] ==
              doctest::Approx(cpu.losses[size_t(step)]).epsilon(exact ? 1e-4 : 2e-2));
      if (exact) CHECK(relative_distance(device.weights, cpu.weights) < 2e-3);
      for (const auto order : {kernels::ThreadOrder::backward, kernels::ThreadOrder::mixed})
        CHECK(on_device(config, options, order).weights == device.weights);
    }
}
