// A whole model on the emulated device, kernel by kernel, beside the CPU: what single operations cannot show.
#include "model/device_trainer.hpp"

#include <cstring>

#include <doctest/doctest.h>

#include "kernels/base/random.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cuda/emulated.hpp"
#include "model/device_checksums.hpp"
#include "model/fitting.hpp"
#include "tests/kernels/emulated_graphs.hpp"
#include "tests/model/support.hpp"
#if defined(TROUPE_CUDA)
#include "kernels/cuda/backend.hpp"
#include "kernels/cuda/cuda_runtime.hpp"
#endif

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
  for (const auto& [family, kind] :
       std::vector<std::pair<Family, kernels::NormKind>>{{Family::encoder_decoder, kernels::NormKind::layer},
                                                         {Family::decoder, kernels::NormKind::layer},
                                                         {Family::encoder_decoder, kernels::NormKind::rms}})
    for (const auto compute : {kernels::DType::f32, kernels::DType::bf16}) {
      CAPTURE(int(family));
      CAPTURE(int(kind));
      CAPTURE(to_string(compute));
      const int bits = compute == kernels::DType::f32 ? 24 : 8;
      ModelConfig config = config_for(family, compute);
      config.norm_kind = kind;
      if (kind == kernels::NormKind::rms) config.positions = Positions::rotary;
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

TEST_CASE("products in fp8 learn about as well as those in bf16, with the same bits every time") {
  const auto cpu_stream = kernels::make_cpu_backend()->create_stream();
  ModelConfig config = gpt2_config(1, 32, 2, 61, 24);
  config.dropout = 0;
  config.compute = kernels::DType::bf16;
  const StepOptions options = options_for(24);
  const auto batches = [&](int64_t, uint32_t slot) { return random_batch(config, {3, 9, 12}, slot); };
  const auto train = [&](Products products, kernels::ThreadOrder order, int steps) {
    config.products = products;
    const auto stream = kernels::make_emulated_stream(order);
    const auto model = make_model(config);
    DeviceTrainer trainer(*stream, *model, options);
    Run run;
    for (int step = 0; step < steps; ++step) run.losses.push_back(trainer.step(batches).loss.mean_loss());
    run.weights = trainer.weights();
    return run;
  };
  constexpr int kMany = 16;
  const Run plain = train(Products::compute, kernels::ThreadOrder::forward, kMany),
            narrow = train(Products::fp8, kernels::ThreadOrder::forward, kMany);
  INFO("loss " << plain.losses.front() << " to " << plain.losses.back() << " in bf16, "
               << narrow.losses.front() << " to " << narrow.losses.back() << " in fp8");
  CHECK(plain.losses.back() < 0.7 * plain.losses.front());
  CHECK(narrow.losses.front() == doctest::Approx(plain.losses.front()).epsilon(0.01));
  CHECK(narrow.losses.back() == doctest::Approx(plain.losses.back()).epsilon(0.02));
  CHECK(narrow.weights != plain.weights);
  CHECK(train(Products::fp8, kernels::ThreadOrder::forward, kMany).weights == narrow.weights);
  const Run short_run = train(Products::fp8, kernels::ThreadOrder::forward, 2);
  for (const auto order : {kernels::ThreadOrder::backward, kernels::ThreadOrder::mixed})
    CHECK(train(Products::fp8, order, 2).weights == short_run.weights);
}

TEST_CASE("a CPU packs a model that was trained in fp8 for what it is used for there, not for training") {
  ModelConfig config = config_for(Family::decoder, kernels::DType::bf16);
  config.products = Products::fp8;
  const auto backend = kernels::make_cpu_backend();
  const auto stream = backend->create_stream();
  const auto model = make_model(config);
  TrainState state = first_state(kernels::allocate_host, *model, 3);
  CHECK_THROWS_AS(pack_state(*backend, *stream, *model, state), Error);
  for (const auto packing : {kernels::Packing::training, kernels::Packing::inference}) {
    const PackedWeights packed =
        pack_weights(*backend, *stream, *model, state.weight_data(), {kernels::DType::bf16, packing});
    for (const kernels::PackedWeight& weight : packed.views)
      if (weight.data != nullptr) CHECK(weight.packing == packing);
  }
}

TEST_CASE("a state goes to an emulated device and comes back, chain and all") {
  const ModelConfig config = config_for(Family::encoder_decoder, kernels::DType::f32);
  const StepOptions options = options_for(24);
  const auto stream = kernels::make_emulated_stream(kernels::ThreadOrder::forward);
  const auto model = make_model(config);
  DeviceTrainer first(*stream, *model, options);
  first.step(batches_for(config));
  const auto other_stream = kernels::make_emulated_stream(kernels::ThreadOrder::forward);
  const TrainState copy = first.copy_state(*other_stream);
  CHECK(copy.step == 1);
  CHECK(copy.chain != std::array<uint8_t, 32>{});

  DeviceTrainer second(*other_stream, *model, options, copy);
  CHECK(state_digest(second.copy_state(*stream)) == state_digest(copy));
  first.step(batches_for(config));
  second.step(batches_for(config));
  CHECK(state_digest(second.copy_state(*stream)) == state_digest(first.copy_state(*stream)));
}

TEST_CASE("what changes by itself in a device's memory is named, and nothing else is") {
  ModelConfig config = config_for(Family::decoder, kernels::DType::bf16);
  config.products = Products::fp8;  // several forms of a packed weight
  const auto stream = kernels::make_emulated_stream(kernels::ThreadOrder::forward);
  const auto model = make_model(config);
  DeviceTrainer trainer(*stream, *model, options_for(24));
  TrainState& state = trainer.state();
  DeviceChecksums checksums(model->parameters(), state);
  checksums.seal(*stream, state);
  const auto found = [&] {
    return checksums
        .check(*stream, state,
               {DeviceChecksums::kWeights, DeviceChecksums::kMoment1, DeviceChecksums::kMoment2,
                DeviceChecksums::kPacked})
        .value_or("nothing");
  };
  CHECK(found() == "nothing");
  for (size_t i = 0; i < model->parameters().all().size(); ++i) {
    const Parameter& p = model->parameters().all()[i];
    CAPTURE(p.name);
    const int64_t place = p.offset + p.rows * p.cols - 1;
    const auto check = [&](void* at, const std::string& what, bool copied) {
      *static_cast<unsigned char*>(at) ^= 8;
      CHECK(found() == what + " of " + p.name);
      const std::string of_copy = copied ? what + " of " + p.name : "nothing";
      CHECK(checksums.check_copy(trainer.copy_state(*stream)).value_or("nothing") == of_copy);
      *static_cast<unsigned char*>(at) ^= 8;
    };
    check(state.weight_data() + place, "a weight", true);
    check(state.moment1_data() + place, "a first moment", true);
    check(state.moment2_data() + place, "a second moment", true);
    if (!p.packed) continue;
    const kernels::PackedWeight& packed = state.packed.views[i];
    auto* const first = static_cast<unsigned char*>(const_cast<void*>(packed.data));
    check(first, "a packed weight", false);
    check(first + kernels::CudaStream::packed_size(packed) - 1, "a packed weight", false);
  }
  CHECK(found() == "nothing");
}

TEST_CASE("a model or a slot that does not fit on a device is refused with what it takes and what is free") {
  const ModelConfig config = config_for(Family::decoder, kernels::DType::f32);
  const auto model = make_model(config);
  const auto with_memory = [](size_t free) {
    return kernels::make_emulated_stream(kernels::ThreadOrder::forward, kernels::kEmulatedLimits,
                                         {free, size_t{1} << 30});
  };
  const auto small = with_memory(10'000);
  const std::string state = std::to_string(DeviceTrainer::state_bytes(*small, *model));
  CHECK_THROWS_WITH_AS(DeviceTrainer(*small, *model, options_for(24)),
                       doctest::Contains(("sums take " + state + " bytes").c_str()), Error);
  CHECK_THROWS_WITH_AS(DeviceTrainer(*small, *model, options_for(24)),
                       doctest::Contains("10000 (0.00 GiB) are free; use a smaller model"), Error);
  const int64_t parameters = model->parameters().elements(),
                fewer = parameters_that_fit(10'000, parameters, DeviceTrainer::state_bytes(*small, *model));
  CHECK_THROWS_WITH_AS(
      DeviceTrainer(*small, *model, options_for(24)),
      doctest::Contains(fmt::format("{} parameters, and fewer than {} would fit", parameters, fewer).c_str()),
      Error);
  // The emulated device says the same number however much has been taken.
  const auto enough_for_it = with_memory(DeviceTrainer::state_bytes(*small, *model));
  DeviceTrainer trainer(*enough_for_it, *model, options_for(24));
  const auto large = [&](int64_t, uint32_t slot) { return random_batch(config, {64, 9, 20}, slot); };
  const int64_t fitting = tokens_that_fit(*model, DeviceTrainer::state_bytes(*small, *model), 64 * 20);
  REQUIRE(fitting > 40);
  CHECK_THROWS_WITH_AS(
      trainer.step(large),
      doctest::Contains(fmt::format("prepare the data with --pack-tokens below {}, or", fitting).c_str()),
      Error);
  const auto fits = [&](int64_t, uint32_t slot) {
    return random_batch(config, {int32_t(fitting / 20), 9, 20}, slot);
  };
  CHECK_NOTHROW(trainer.step(fits));
}

namespace {

// Makes another's calls, and keeps what `watched` was when each mark was set.
class MarkWatcher final : public kernels::DeviceRuntime {
 public:
  explicit MarkWatcher(std::unique_ptr<kernels::DeviceRuntime> runtime) : runtime_(std::move(runtime)) {}
  std::span<const int64_t> watched;
  std::vector<std::vector<int64_t>> seen;  // by mark
  int waits = 0;

  void set_mark(size_t mark) override {
    seen.resize(mark + 1);
    seen[mark].assign(watched.begin(), watched.end());
    runtime_->set_mark(mark);
  }
  void wait_for_mark(size_t mark) override {
    CHECK(mark < seen.size());
    ++waits;
    runtime_->wait_for_mark(mark);
  }
  kernels::Device device() const override { return runtime_->device(); }
  kernels::DeviceMemory memory() const override { return runtime_->memory(); }
  void synchronize() override { runtime_->synchronize(); }
  void* native() const override { return runtime_->native(); }
  kernels::Buffer allocate(size_t bytes) override { return runtime_->allocate(bytes); }
  void copy_in(void* to, const void* from, size_t bytes) override { runtime_->copy_in(to, from, bytes); }
  void copy_out(void* to, const void* from, size_t bytes) override { runtime_->copy_out(to, from, bytes); }
  void start_copy_out(const void* from, size_t bytes) override { runtime_->start_copy_out(from, bytes); }
  void finish_copy_out(void* to) override { runtime_->finish_copy_out(to); }
  void copy_rows(void* to, size_t to_stride, const void* from, size_t from_stride, size_t bytes,
                 size_t rows) override {
    runtime_->copy_rows(to, to_stride, from, from_stride, bytes, rows);
  }
  void zero_rows(void* to, size_t stride, size_t bytes, size_t rows) override {
    runtime_->zero_rows(to, stride, bytes, rows);
  }
  void launch(const kernels::KernelCall& call) override { runtime_->launch(call); }
  void multiply(const kernels::Product& product) override { runtime_->multiply(product); }
  bool has_algorithm(const kernels::Product& product) override { return runtime_->has_algorithm(product); }
  std::optional<size_t> attention_workspace(const kernels::FusedAttention& attention) override {
    return runtime_->attention_workspace(attention);
  }
  void attend(const kernels::FusedAttention& attention) override { runtime_->attend(attention); }

 private:
  std::unique_ptr<kernels::DeviceRuntime> runtime_;
};

}  // namespace

TEST_CASE("what a slot says it has folded stands in the sum at its marks, between its graphs") {
  auto watching =
      std::make_unique<MarkWatcher>(kernels::make_emulated_runtime(kernels::ThreadOrder::forward));
  MarkWatcher& watcher = *watching;
  GraphLog log;
  auto graphs = std::make_unique<EmulatedGraphs>(watcher, log);
  kernels::CudaStream stream(std::make_unique<kernels::GraphRuntime>(std::move(watching), std::move(graphs)),
                             kernels::kEmulatedLimits);
  const ModelConfig config = gpt2_config(4, 32, 2, 61, 24);
  const auto model = make_model(config);
  DeviceTrainer trainer(stream, *model, options_for(24));
  const Batch batch = random_batch(config, {2, 9, 11}, 5);
  const int64_t elements = model->parameters().elements();
  const std::span sum(trainer.sum().values(), size_t(elements));
  watcher.watched = sum;
  int launches = 0;
  for (int again = 0; again < 3; ++again) {
    CAPTURE(again);
    launches = log.launches;
    trainer.clear_sum();
    watcher.seen.clear();
    std::vector<int64_t> whole;
    uint32_t flags = 0;
    trainer.fold_slot(batch, 0, flags, [&](int64_t offset) {
      whole.push_back(offset);
      CHECK(watcher.waits == int(whole.size()));
    });
    watcher.waits = 0;
    REQUIRE(whole.size() == 3);
    REQUIRE(watcher.seen.size() == 3);
    for (size_t mark = 0; mark < 3; ++mark) {
      CAPTURE(mark);
      const auto offset = size_t(whole[mark]);
      CHECK((elements - whole[mark]) * 4 >= int64_t(mark + 1) * elements);
      if (mark > 0) CHECK(whole[mark] < whole[mark - 1]);
      const std::span seen(watcher.seen[mark]);
      CHECK(std::ranges::equal(seen.subspan(offset), sum.subspan(offset)));
      CHECK_FALSE(std::ranges::equal(seen, sum));
    }
  }
  CHECK(log.launches >= launches + 4);  // the parts are graphs by now
}

namespace {

// The digest and the losses of steps and evaluations whose shapes come again, and once a larger one: memory
// grows and moves when there are graphs already.
std::pair<std::string, std::vector<double>> train_many_shapes(kernels::CudaStream& stream,
                                                              const ModelConfig& config) {
  const auto model = make_model(config);
  StepOptions options = options_for(8);
  options.slots = 4;
  const auto batches = [&](int64_t step, uint32_t slot) {
    const std::vector<BatchShape> shapes{{2, 9, 11}, {3, 5, 7}, {2, 9, 11}, {2, 12, 9}};
    const BatchShape shape = step == 2 && slot == 2 ? BatchShape{5, 14, 16} : shapes[slot];
    return random_batch(config, shape, mix64(uint64_t(step), slot));
  };
  const Batch evaluated = random_batch(config, {3, 9, 9}, 77);
  DeviceTrainer trainer(stream, *model, options);
  std::vector<double> losses;
  for (int step = 0; step < 6; ++step) {
    losses.push_back(trainer.step(batches).loss.mean_loss());
    losses.push_back(trainer.evaluate_slot(evaluated).loss);
  }
  return {trainer.digest(), losses};
}

}  // namespace

TEST_CASE(
    "slots on an emulated device as graphs give the bits of slots call by call, whatever their shapes") {
  for (const auto family : {Family::encoder_decoder, Family::decoder}) {
    CAPTURE(int(family));
    const ModelConfig config = config_for(family, kernels::DType::bf16);
    const auto expected =
        train_many_shapes(*kernels::make_emulated_stream(kernels::ThreadOrder::forward), config);
    for (const size_t graphs : {size_t{64}, size_t{3}}) {
      CAPTURE(graphs);
      GraphLog log;
      kernels::GraphLimits limits;
      limits.graphs = graphs;
      auto runtime = make_graph_runtime(log, limits);
      const kernels::GraphCache& cache = runtime->cache();
      kernels::CudaStream stream(std::move(runtime), kernels::kEmulatedLimits);
      CHECK(train_many_shapes(stream, config) == expected);
      CHECK(cache.size() <= graphs);
      CHECK(cache.totals().captures > 0);  // how many depends on where memory came to lie
      CHECK(cache.totals().launches > cache.totals().captures);
      CHECK(cache.totals().updates > cache.totals().launches);
      CHECK(log.alive == int(cache.size()));
    }
  }
}

namespace {

// The digest of steps whose attention is of whole blocks, so that it may be fused.
std::string train_whole_blocks(kernels::CudaStream& stream) {
  ModelConfig config = gpt2_config(2, 32, 2, 61, 128);
  config.compute = kernels::DType::bf16;
  config.attention_dropout = 0;
  const auto model = make_model(config);
  StepOptions options = options_for(8);
  options.slots = 1;
  DeviceTrainer trainer(stream, *model, options);
  for (int step = 0; step < 4; ++step)
    trainer.step([&](int64_t at, uint32_t) { return random_batch(config, {1, 0, 128}, uint64_t(at)); });
  return trainer.digest();
}

}  // namespace

TEST_CASE("a slot whose attention is fused gives the same bits as a graph and call by call") {
  GraphLog log;
  kernels::CudaStream graphs(make_graph_runtime(log), kernels::kEmulatedLimits);
  const std::string digest = train_whole_blocks(graphs);
  CHECK(digest == train_whole_blocks(*kernels::make_emulated_stream(kernels::ThreadOrder::forward)));
  CHECK(log.launches > log.captures);
  kernels::CudaLimits own_kernels = kernels::kEmulatedLimits;
  own_kernels.attention_bytes = 0;
  CHECK(digest !=
        train_whole_blocks(*kernels::make_emulated_stream(kernels::ThreadOrder::forward, own_kernels)));
}

#if defined(TROUPE_CUDA)
TEST_CASE("slots on the GPU as graphs give the bits of slots call by call, whatever their shapes" *
          doctest::skip(kernels::cuda_device_count() == 0)) {
  for (const auto family : {Family::encoder_decoder, Family::decoder})
    for (const auto compute : {kernels::DType::f32, kernels::DType::bf16}) {
      CAPTURE(int(family));
      CAPTURE(to_string(compute));
      const ModelConfig config = config_for(family, compute);
      kernels::CudaStream direct(kernels::make_cuda_runtime(0));
      const auto graphs = kernels::make_cuda_stream(0);
      CHECK(train_many_shapes(*graphs, config) == train_many_shapes(direct, config));
      const auto& runtime = dynamic_cast<kernels::GraphRuntime&>(graphs->runtime());
      CHECK(runtime.cache().totals().launches > runtime.cache().totals().captures);
    }
}

TEST_CASE("slots on the GPU whose attention is fused give the same bits as graphs and call by call" *
          doctest::skip(kernels::cuda_device_count() == 0)) {
  kernels::CudaStream direct(kernels::make_cuda_runtime(0));
  CHECK(train_whole_blocks(*kernels::make_cuda_stream(0)) == train_whole_blocks(direct));
}
#endif
