// What a GPU does with Troupe's operations and whole steps, beside its own ceilings in the same run: the rows
// of docs/gpu.md. Prints one table; see --help.
#include <cstdio>

#include <CLI/CLI.hpp>

#include "bench/gpu_graphs.hpp"
#include "bench/gpu_operations.hpp"
#include "kernels/cuda/cuda_runtime.hpp"
#include "model/device_trainer.hpp"

namespace {

using namespace troupe;
using namespace troupe::bench;

struct Workload {
  const char* name;
  model::ModelConfig config;
  int64_t sentences, length;  // of a slot
  int slots;
};

TokenMatrix random_tokens(const Workload& w, uint64_t key) {
  TokenMatrix tokens{int32_t(w.sentences),
                     int32_t(w.length),
                     {},
                     std::vector<int32_t>(size_t(w.sentences), int32_t(w.length))};
  for (uint64_t i = 0; i < uint64_t(w.sentences * w.length); ++i)
    tokens.ids.push_back(int32_t(4 + mix64(key, i) % uint64_t(w.config.vocabulary - 4)));
  return tokens;
}

Batch random_batch(const Workload& w, uint64_t key) {
  Batch batch;
  if (w.config.family == model::Family::encoder_decoder) batch.source = random_tokens(w, mix64(key, 1));
  batch.target_in = random_tokens(w, mix64(key, 2));
  batch.target_out = random_tokens(w, mix64(key, 3)).ids;
  batch.target_tokens = w.sentences * w.length;
  return batch;
}

// Operations of a slot's products: 6 a weight and token, and those of attention (half of them where it is
// causal).
double slot_flops(const Workload& w, const model::ParameterTable& table) {
  const auto& c = w.config;
  const double tokens = double(w.sentences * w.length);
  double weights = double(c.vocabulary * c.width);
  for (const auto& p : table.all())
    if (p.kind == model::ParameterKind::matrix) weights += double(p.rows * p.cols);
  const bool translates = c.family == model::Family::encoder_decoder;
  const double attentions = double(c.encoder_layers) + double(c.decoder_layers) * (translates ? 1.5 : 0.5);
  return 6 * weights * tokens + 12 * attentions * tokens * double(w.length) * double(c.width);
}

model::StepOptions options_of(const Workload& w) {
  model::StepOptions options;
  options.seed = 3;
  options.slots = w.slots;
  options.optimizer.schedule.peak = 1e-4;
  return options;
}

std::vector<Batch> batches_of(const Workload& w) {
  std::vector<Batch> batches;
  for (int slot = 0; slot < w.slots; ++slot) batches.push_back(random_batch(w, mix64(7, uint64_t(slot))));
  return batches;
}

double bytes_in_use() {
  const DeviceMemory memory = cuda_memory(0);
  return double(memory.total) - double(memory.free);
}

// What the card's memory has more in it than `before` the model, beside what has to be kept: its state, sums
// and totals, and a slot's activations. The rest is scratch, graphs, modules and CUDA's own.
void memory_row(const Workload& w, const model::Model& model, const model::DeviceTrainer& trainer,
                double before) {
  const auto state = double(trainer.state_bytes()),
             activations = double(model.arena_bytes(w.sentences, w.sentences * w.length, true));
  const double used = bytes_in_use() - before;
  fmt::print(
      "| {}, slots of {} x {}: memory in use, and what must be kept | {:.3f} and {:.3f} GB | {:.3f} GB of "
      "state, sums and totals, {:.3f} GB of activations | {:.3f} times |\n",
      w.name, w.sentences, w.length, used * 1e-9, (state + activations) * 1e-9, state * 1e-9,
      activations * 1e-9, used / (state + activations));
}

void time_steps(const GpuMeter& meter, const Workload& w, const model::Model& model,
                model::DeviceTrainer& trainer, const std::vector<Batch>& batches) {
  const auto source = [&](int64_t, uint32_t slot) { return batches[slot]; };
  const double tokens = double(w.sentences * w.length) * w.slots;
  const double flops = slot_flops(w, model.parameters()) * w.slots;
  const double ms = meter.time([&] { trainer.step(source); }, 5);
  fmt::print("| {}, {} x {} x {}: step | {:.1f} ms | {:.0f} tokens/s | {:.0f} % of the bf16 product |\n",
             w.name, w.sentences, w.length, w.slots, ms, tokens / ms * 1e3,
             100 * flops / ms * 1e-9 / meter.bf16_tflop_s);
}

void measure_step(GpuMeter& meter, const Workload& w) {
  const auto model = model::make_model(w.config);
  const std::vector<Batch> batches = batches_of(w);
  meter.stream = make_cuda_stream(0);  // gives back what other models have left in its scratch
  const double before = bytes_in_use();
  model::DeviceTrainer trainer(*meter.stream, *model, options_of(w));
  time_steps(meter, w, *model, trainer, batches);
  memory_row(w, *model, trainer, before);
  BlockLayout layout = model->parameters().layout();
  DeviceAccumulator sums(*meter.stream, layout);
  DeviceSink exact(*meter.stream, sums, {24, w.slots, 1});
  DropSink none;
  const double with = meter.time([&] { trainer.run_slot(batches[0], {3, 0, 0}, exact); }, 9);
  const double without = meter.time([&] { trainer.run_slot(batches[0], {3, 0, 0}, none); }, 9);
  fmt::print("| {}: a slot with exact sums, and without | {:.2f} and {:.2f} ms | | {:.1f} % for the sums |\n",
             w.name, with, without, 100 * (with / without - 1));
}

// Not x(0), which takes a minute for so many weights: a million values over and over.
model::TrainState some_state(const model::Model& model, uint64_t seed) {
  model::TrainState state = model::allocate_state(allocate_host, model.parameters().elements());
  constexpr int64_t kPeriod = 1 << 20;
  float* weights = state.weight_data();
  for (int64_t i = 0; i < state.elements; ++i)
    weights[i] =
        i < kPeriod ? 0.02f * float(int32_t(mix64(seed, uint64_t(i)))) * 0x1p-31f : weights[i - kPeriod];
  std::fill_n(state.moment1_data(), state.elements, 0.0f);
  std::fill_n(state.moment2_data(), state.elements, 0.0f);
  return state;
}

// With as many sentences as find memory, up to those of `w`. Arenas, scratch and graphs do not shrink, so
// each try has a stream and a trainer of its own; what the arena alone rules out is not tried.
void measure_largest_step(GpuMeter& meter, Workload w) {
  meter.stream = make_cuda_stream(0);
  const auto model = model::make_model(w.config);
  const size_t needed = model::DeviceTrainer::state_bytes(*meter.stream, *model),
               free = meter.stream->runtime().memory().free;
  while (w.sentences > 0 && needed + model->arena_bytes(w.sentences, w.sentences * w.length, true) > free)
    --w.sentences;
  const model::TrainState state = w.sentences > 0 ? some_state(*model, 3) : model::TrainState{};
  for (; w.sentences > 0; --w.sentences) {
    try {
      meter.stream.reset();  // first: both may not fit
      meter.stream = make_cuda_stream(0);
      const double before = bytes_in_use();
      model::DeviceTrainer trainer(*meter.stream, *model, options_of(w), state);
      time_steps(meter, w, *model, trainer, batches_of(w));
      memory_row(w, *model, trainer, before);
      return;
    } catch (const Error& failure) {
      if (failure.kind() != ErrorKind::out_of_memory) throw;
    }
  }
  fmt::print("| {} | does not fit: {:.1f} GB for its state alone, of {:.1f} GB that are free | | |\n", w.name,
             double(needed) * 1e-9, double(free) * 1e-9);
}

void measure_graphs(const Workload& w) {
  bench::measure_graphs(w.name, *model::make_model(w.config), options_of(w), batches_of(w));
}

// The digest of the weights after `steps` steps of a small model.
std::string digest_after(const Workload& w, int steps) {
  const auto stream = make_cuda_stream(0);
  const auto model = model::make_model(w.config);
  model::StepOptions options;
  options.seed = 5;
  options.slots = w.slots;
  model::DeviceTrainer trainer(*stream, *model, options);
  for (int step = 0; step < steps; ++step)
    trainer.step([&](int64_t s, uint32_t slot) { return random_batch(w, mix64(uint64_t(s), slot)); });
  return trainer.digest();
}

void measure_same_bits(const Workload& w, int steps, int repeats) {
  const std::string first = digest_after(w, steps);
  int same = 1;
  for (int i = 1; i < repeats; ++i) same += digest_after(w, steps) == first ? 1 : 0;
  fmt::print("| {}: {} runs of {} steps, dropout 0.1 | {} with the same digest | {} | |\n", w.name, repeats,
             steps, same, first.substr(0, 16));
  if (same != repeats)
    throw error(ErrorKind::numeric, "{} of {} runs differ from the first", repeats - same, repeats);
}

Workload base_workload() {
  Workload base{"base translation", {}, 128, 64, 4};
  base.config.vocabulary = 32000;
  base.config.width = 512;
  base.config.inner = 2048;
  base.config.encoder_layers = base.config.decoder_layers = 6;
  base.config.compute = DType::bf16;
  return base;
}

Workload gpt2_workload() {
  Workload gpt2{"GPT-2 124M", model::gpt2_config(12, 768, 12, 50257, 1024), 16, 1024, 2};
  gpt2.config.compute = DType::bf16;
  return gpt2;
}

// Takes all memory of the GPU but so many MiB, says so, and keeps it until the input ends.
void hold_memory(int mebibytes) {
  std::vector<Buffer> held;
  for (size_t piece = size_t{1} << 36; piece >= size_t{1} << 20; piece /= 2)
    while (cuda_memory(0).free >= piece + (size_t(mebibytes) << 20)) held.push_back(allocate_cuda(piece, 0));
  fmt::print("held\n");
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("Measures Troupe on GPU 0 and prints the rows of docs/gpu.md.");
  bool quick = false, steps = false;
  app.add_flag("--quick", quick, "operations and the same-bits rows alone");
  app.add_flag("--steps", steps, "steps of base and GPT-2 124M alone")->excludes("--quick");
  int hold = -1;
  app.add_option("--hold", hold, "take all memory but so many MiB until the input ends")
      ->excludes("--quick", "--steps")
      ->check(CLI::Range(0, 1 << 20));
  CLI11_PARSE(app, argc, argv);
  if (hold >= 0) {
    hold_memory(hold);
    return 0;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // rows stay when a limit of time ends the program
  fmt::print("{}\n\n| what | time | rate | share |\n|---|---|---|---|\n", cuda_numerics(0));
  GpuMeter meter;
  measure_ceilings(meter);
  if (!steps) {
    measure_operations(meter);
    Workload small{"small translation", {}, 16, 64, 4};
    small.config.compute = DType::bf16;
    measure_same_bits(small, 20, 20);
    measure_graphs(small);
  }
  if (quick) return 0;
  const Workload base = base_workload(), gpt2 = gpt2_workload();
  measure_step(meter, base);
  measure_step(meter, gpt2);
  if (steps) return 0;
  measure_graphs(base);
  measure_graphs(gpt2);
  if (meter.multiplies_fp8()) {
    Workload fp8 = gpt2;
    fp8.name = "GPT-2 124M, fp8";
    fp8.config.products = model::Products::fp8;
    measure_step(meter, fp8);
  }
  Workload largest{"GPT-2 1.5B", model::gpt2_config(48, 1600, 25, 50257, 1024), 128, 1024, 2};
  largest.config.compute = DType::bf16;
  measure_largest_step(meter, largest);
  return 0;
} catch (const std::exception& failure) {
  fmt::print(stderr, "bench_gpu: {}\n", failure.what());
  return 1;
}
