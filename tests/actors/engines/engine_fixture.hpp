// What tests of engines share: a job that is smaller than tiny, engines of each kind for it, and the parts of
// a step as the roles run them.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "actors/engines/cpu_engine.hpp"
#include "actors/engines/devices.hpp"
#include "actors/engines/engine_setup.hpp"
#include "actors/engines/train_engine.hpp"
#include "data/tiny.hpp"
#include "kernels/cpu/backend.hpp"
#include "model/step.hpp"

namespace troupe::testing {

using namespace troupe::actors;
using config::DeviceKind;

inline config::JobConfig small_job() {
  return config::parse_job("test",
                           "[data]\nsource = \"tiny\"\n[model]\nwidth = 8\ninner = 16\nheads = 2\n"
                           "encoder_layers = 1\ndecoder_layers = 1\nmax_length = 64\ncompute = \"f32\"\n"
                           "[training]\nsteps = 4\nslots = 4\n[evaluation]\nevery = 2\nslots = 2\n");
}

// What this machine can train on: the CPU, the emulated device, and a GPU where there is one.
inline std::vector<DeviceKind> find_kinds() {
  std::vector<DeviceKind> found = {DeviceKind::cpu, DeviceKind::emulated};
  try {
    find_devices({DeviceKind::cuda, {}});
    found.push_back(DeviceKind::cuda);
  } catch (const Error& none) {
    MESSAGE("not tested on a GPU: ", std::string(none.what()));
  }
  return found;
}
inline const std::vector<DeviceKind>& kinds() {
  static const std::vector<DeviceKind> found = find_kinds();
  return found;
}

// So many emulated devices, or GPUs, as far as this machine has them.
inline config::Devices devices_of(DeviceKind kind, uint32_t count) {
  config::Devices devices{kind, {}};
  if (kind == DeviceKind::cuda) devices = find_devices(devices);
  if (kind == DeviceKind::emulated)
    for (uint32_t i = 0; i < count; ++i) devices.indices.push_back(int(i));
  if (devices.indices.size() > count) devices.indices.resize(count);
  return devices;
}

struct Fixture {
  std::shared_ptr<const data::Dataset> dataset = data::make_tiny_dataset({.pairs = 1000, .pack_tokens = 64});
  config::JobConfig job = small_job();
  scheduler::SlotPlan plan{4, 2, 2, 4};
  std::shared_ptr<kernels::Backend> backend = kernels::make_cpu_backend();
  Fixture() { job.model = complete_model(job, *dataset); }

  // With so many threads or devices.
  std::unique_ptr<TrainEngine> engine(DeviceKind kind, uint32_t workers = 1) const {
    return engine(devices_of(kind, workers), workers);
  }
  std::unique_ptr<TrainEngine> engine(const config::Devices& devices, uint32_t workers = 1) const {
    auto model = model::make_model(job.model);
    auto state = model::first_state(kernels::allocate_host, *model, uint64_t(job.seed));
    std::unique_ptr<TrainEngine> made;
    if (devices.kind == DeviceKind::cpu)
      made = std::make_unique<CpuEngine>(backend, job, plan, std::move(model), std::move(state), workers);
    else
      made = make_device_engine(devices, job, plan, std::move(model), state);
    for (uint32_t i = 0; i < made->workers(); ++i) made->open_worker(i);
    return made;
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

inline void share(TrainEngine& engine, const std::shared_ptr<SharedWork>& work) {
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < engine.workers(); ++i)
    threads.emplace_back([&, i] {
      engine.open_worker(i);  // each on its own thread
      work->run(engine.stream(i));
    });
  for (std::thread& thread : threads) thread.join();
}

// Slots first, first + of, ... of the step.
inline void run_slots(const Fixture& fixture, TrainEngine& engine, int64_t step, uint32_t first = 0,
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

inline StepOutcome commit(TrainEngine& engine, const comm::SumMeta& sum, bool reduced) {
  share(engine, engine.measure_work(reduced));
  share(engine, engine.apply_work(sum));
  share(engine, engine.pack_work());
  return engine.finish_commit(sum);
}

inline StepOutcome run_step(const Fixture& fixture, TrainEngine& engine, int64_t step) {
  run_slots(fixture, engine, step);
  return commit(engine, engine.own_sum(), false);
}

// What a ring of two leaves with both.
inline comm::SumMeta reduce(TrainEngine& one, TrainEngine& other) {
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

inline std::string digest_of(TrainEngine& engine) {
  const auto digest = model::state_digest(engine.snapshot());
  return {digest.begin(), digest.end()};
}

}  // namespace troupe::testing
