// What a GPU does with Troupe's operations and whole steps, beside its own ceilings in the same run: the rows
// of docs/gpu.md. Prints one table; see --help. Times are medians between CUDA events, inputs random.
#include <algorithm>
#include <array>
#include <functional>

#include <CLI/CLI.hpp>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "bench/gpu_graphs.hpp"
#include "kernels/base/random.hpp"
#include "kernels/cuda/backend.hpp"
#include "kernels/cuda/check.hpp"
#include "model/device_trainer.hpp"

namespace {

using namespace troupe;
using namespace troupe::kernels;

constexpr int64_t kTokens = 8192, kLength = 1024, kWidth = 768, kHeads = 12, kVocabulary = 50257;

struct Bench {
  std::unique_ptr<CudaStream> stream = make_cuda_stream(0);
  double copy_gb_s = 0, bf16_tflop_s = 0;

  bool multiplies_fp8() const {
    try {
      stream->packed_bytes(16, 16, {DType::bf16, Packing::fp8});
      return true;
    } catch (const Error& none) {
      fmt::print("| fp8 products | {} | | |\n", none.what());
      return false;
    }
  }

  // Random values (a million of them over and over), so that neither zeros nor denormals flatter the clocks.
  Buffer random(DType dtype, int64_t count) {
    constexpr size_t kPeriod = size_t{1} << 20;
    std::vector<uint16_t> values(size_t(count) * size_of(dtype) / 2);
    const Philox philox = philox_from(3);
    for (size_t i = 0; i < values.size(); ++i) {
      if (i >= kPeriod) {
        values[i] = values[i - kPeriod];
        continue;
      }
      const uint32_t w = philox(i)[0];
      const float x = float(int32_t(w)) * 0x1p-31f;
      values[i] = uint16_t(std::bit_cast<uint32_t>(x) >> 16);  // also the upper half of an f32 of such size
      if (dtype == DType::f32 && i % 2 == 0) values[i] = uint16_t(w);
    }
    Buffer buffer = stream->runtime().allocate(values.size() * 2);
    stream->runtime().copy_in(buffer.data(), values.data(), values.size() * 2);
    return buffer;
  }

  // Median milliseconds of a call, after two to warm up.
  double time(const std::function<void()>& call, int repeats = 15) {
    call();
    call();
    cudaEvent_t begin = nullptr, end = nullptr;
    check_cuda(cudaEventCreate(&begin), "cannot create an event");
    check_cuda(cudaEventCreate(&end), "cannot create an event");
    const auto queue = static_cast<cudaStream_t>(stream->runtime().native());
    std::vector<float> times;
    for (int i = 0; i < repeats; ++i) {
      check_cuda(cudaEventRecord(begin, queue), "cannot record an event");
      call();
      check_cuda(cudaEventRecord(end, queue), "cannot record an event");
      check_cuda(cudaEventSynchronize(end), "the measured work failed");
      check_cuda(cudaEventElapsedTime(&times.emplace_back(), begin, end), "cannot read an event");
    }
    check_cuda(cudaEventDestroy(begin), "cannot destroy an event");
    check_cuda(cudaEventDestroy(end), "cannot destroy an event");
    std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
    return double(times[size_t(repeats / 2)]);
  }
  void bytes_row(const char* name, double bytes, double ms) const {
    fmt::print("| {} | {:.3f} ms | {:.0f} GB/s | {:.0f} % of copying |\n", name, ms, bytes / ms * 1e-6,
               100 * bytes / ms * 1e-6 / copy_gb_s);
  }
  void flops_row(const char* name, double flops, double ms) const {
    fmt::print("| {} | {:.3f} ms | {:.1f} TFLOP/s | {:.0f} % of the bf16 product |\n", name, ms,
               flops / ms * 1e-9, 100 * flops / ms * 1e-9 / bf16_tflop_s);
  }
};

View matrix(const Buffer& buffer, DType dtype, int64_t rows, int64_t cols) {
  return {buffer.data(), dtype, rows, cols, cols};
}

void measure_ceilings(Bench& bench) {
  constexpr int64_t kBytes = int64_t{2} << 30, kSide = 8192;
  {
    const Buffer a = bench.random(DType::bf16, kBytes / 2),
                 b = bench.stream->runtime().allocate(size_t(kBytes));
    const double ms = bench.time([&] {
      bench.stream->convert(matrix(a, DType::bf16, 1, kBytes / 2), matrix(b, DType::bf16, 1, kBytes / 2));
    });
    bench.copy_gb_s = 2 * double(kBytes) / ms * 1e-6;
  }
  const Buffer x = bench.random(DType::bf16, kSide * kSide), w = bench.random(DType::bf16, kSide * kSide),
               y = bench.random(DType::bf16, kSide * kSide);
  const PackedWeight weight{w.data(), kSide, kSide, DType::bf16};
  const double ms = bench.time([&] {
    bench.stream->linear_forward(matrix(x, DType::bf16, kSide, kSide), weight, {},
                                 matrix(y, DType::bf16, kSide, kSide));
  });
  bench.bf16_tflop_s = 2.0 * kSide * kSide * kSide / ms * 1e-9;
  bench.bytes_row("copy, 2 GiB", 2 * double(kBytes), 2 * double(kBytes) / bench.copy_gb_s * 1e-6);
  bench.flops_row("bf16 product, 8192 cubed", 2.0 * kSide * kSide * kSide, ms);
}

void measure_products(Bench& bench) {
  const Buffer x = bench.random(DType::bf16, kTokens * 4 * kWidth),
               w = bench.random(DType::bf16, 4 * kWidth * kWidth),
               y = bench.random(DType::bf16, kTokens * 4 * kWidth),
               dw = bench.random(DType::f32, 4 * kWidth * kWidth),
               bias = bench.random(DType::f32, 4 * kWidth);
  const PackedWeight weight{w.data(), 4 * kWidth, kWidth, DType::bf16};
  const View in = matrix(x, DType::bf16, kTokens, kWidth), out = matrix(y, DType::bf16, kTokens, 4 * kWidth);
  const double flops = 2.0 * kTokens * kWidth * 4 * kWidth;
  bench.flops_row("linear 768 to 3072, 8192 tokens", flops, bench.time([&] {
    bench.stream->linear_forward(in, weight, matrix(bias, DType::f32, 1, 4 * kWidth), out);
  }));
  bench.flops_row("its input's gradient", flops,
                  bench.time([&] { bench.stream->linear_backward_input(out, weight, in, false); }));
  bench.flops_row("its weight's and bias's gradients", flops, bench.time([&] {
    bench.stream->linear_backward_weight(out, in, matrix(dw, DType::f32, 4 * kWidth, kWidth),
                                         matrix(bias, DType::f32, 1, 4 * kWidth));
  }));
}

// A linear operation with its GELU, and the gradient through both, as one product and as operations.
void measure_activations(Bench& bench) {
  const Buffer x = bench.random(DType::bf16, kTokens * kWidth),
               w = bench.random(DType::bf16, 4 * kWidth * kWidth),
               p = bench.random(DType::bf16, kTokens * 4 * kWidth),
               y = bench.random(DType::bf16, kTokens * 4 * kWidth), b = bench.random(DType::f32, 4 * kWidth);
  Stream& stream = *bench.stream;
  const View in = matrix(x, DType::bf16, kTokens, kWidth), pre = matrix(p, DType::bf16, kTokens, 4 * kWidth),
             out = matrix(y, DType::bf16, kTokens, 4 * kWidth), bias = matrix(b, DType::f32, 1, 4 * kWidth);
  const PackedWeight inner{w.data(), 4 * kWidth, kWidth, DType::bf16},
      outer{w.data(), kWidth, 4 * kWidth, DType::bf16};
  const FusedActivation gelu{Activation::gelu, {}, pre};
  const double flops = 2.0 * kTokens * kWidth * 4 * kWidth;
  bench.flops_row("linear 768 to 3072 and GELU, one product", flops,
                  bench.time([&] { stream.linear_activation_forward(in, inner, bias, gelu, out); }));
  bench.flops_row("the same as two operations", flops,
                  bench.time([&] { stream.Stream::linear_activation_forward(in, inner, bias, gelu, out); }));
  bench.flops_row("the gradient through both, one product", flops,
                  bench.time([&] { stream.linear_activation_backward_input(in, outer, gelu, out); }));
  bench.flops_row("the same as two operations", flops,
                  bench.time([&] { stream.Stream::linear_activation_backward_input(in, outer, gelu, out); }));
}

// Beside "bf16 product, 8192 cubed", and the size of a layer; with the time to encode what is multiplied.
void measure_fp8(Bench& bench) {
  const PackedType type(DType::bf16, Packing::fp8);
  Stream& stream = *bench.stream;
  for (const auto& [tokens, in, out] :
       {std::array<int64_t, 3>{8192, 8192, 8192}, {kTokens, kWidth, 4 * kWidth}}) {
    const Buffer master = bench.random(DType::f32, in * out), x = bench.random(DType::bf16, tokens * in),
                 y = bench.random(DType::bf16, tokens * out),
                 packed = bench.stream->runtime().allocate(stream.packed_bytes(out, in, type));
    const PackedWeight weight = stream.pack(matrix(master, DType::f32, out, in), type, packed.data());
    const View input = matrix(x, DType::bf16, tokens, in), output = matrix(y, DType::bf16, tokens, out);
    const double flops = 2.0 * double(tokens) * double(in) * double(out);
    const std::string name = fmt::format("fp8 product, {} to {}, {} tokens", in, out, tokens);
    bench.flops_row(name.c_str(), flops,
                    bench.time([&] { stream.linear_forward(input, weight, {}, output); }));
    bench.flops_row("its input's gradient", flops,
                    bench.time([&] { stream.linear_backward_input(output, weight, input, false); }));
    bench.bytes_row("packing its weight", 12.0 * double(in * out), bench.time([&] {
      stream.pack(matrix(master, DType::f32, out, in), type, packed.data());
    }));
  }
}

void measure_attention(Bench& bench, float rate) {
  const Buffer qkv = bench.random(DType::bf16, kTokens * 3 * kWidth),
               o = bench.random(DType::bf16, kTokens * kWidth),
               d = bench.random(DType::bf16, kTokens * 3 * kWidth),
               lse = bench.random(DType::f32, kTokens * kHeads);
  const View in = matrix(qkv, DType::bf16, kTokens, 3 * kWidth),
             out = matrix(o, DType::bf16, kTokens, kWidth),
             grad = matrix(d, DType::bf16, kTokens, 3 * kWidth),
             sums = matrix(lse, DType::f32, kTokens / kLength * kHeads, kLength);
  const AttentionShape shape{kTokens / kLength, kLength, kLength,  kHeads, kWidth / kHeads, true,
                             nullptr,           false,   {rate, 5}};
  const auto part = [](View v, int64_t i) { return v.col_range(i * kWidth, kWidth); };
  const double flops = 4.0 * kTokens * kLength * kWidth / 2;  // the half that a causal mask leaves
  const std::string name = fmt::format("attention, causal, 8 x 1024, 12 heads of 64, dropout {}", rate);
  bench.flops_row(name.c_str(), flops, bench.time([&] {
    bench.stream->attention_forward(shape, part(in, 0), part(in, 1), part(in, 2), out, sums);
  }));
  bench.flops_row("its backward pass", 2.5 * flops, bench.time([&] {
    bench.stream->attention_backward(shape, part(in, 0), part(in, 1), part(in, 2), out, sums, out,
                                     part(grad, 0), part(grad, 1), part(grad, 2));
  }));
}

void measure_rows(Bench& bench) {
  const int64_t count = kTokens * kWidth;
  const Buffer x = bench.random(DType::f32, count), y = bench.random(DType::bf16, 4 * count),
               n = bench.random(DType::bf16, 4 * count), g = bench.random(DType::f32, kWidth * 2),
               stats = bench.random(DType::f32, 2 * kTokens), d = bench.random(DType::f32, count);
  const View sum = matrix(x, DType::f32, kTokens, kWidth), in = matrix(y, DType::bf16, kTokens, kWidth),
             normed = matrix(n, DType::bf16, kTokens, kWidth), gamma = matrix(g, DType::f32, 1, kWidth),
             dsum = matrix(d, DType::f32, kTokens, kWidth),
             wide = matrix(y, DType::bf16, kTokens, 4 * kWidth),
             wide_out = matrix(n, DType::bf16, kTokens, 4 * kWidth);
  const View mean = matrix(stats, DType::f32, 2, kTokens).row_range(0, 1),
             rstd = matrix(stats, DType::f32, 2, kTokens).row_range(1, 1),
             dgamma{g.data(), DType::f32, 1, kWidth, kWidth},
             dbeta = matrix(g, DType::f32, 2, kWidth).row_range(1, 1);
  for (const float rate : {0.0f, 0.1f}) {
    const Dropout dropout{rate, 7};
    const std::string suffix = fmt::format(", dropout {}", rate);
    bench.bytes_row(("residual and layer norm" + suffix).c_str(), 12.0 * double(count), bench.time([&] {
      bench.stream->residual_norm_forward({sum, in, dropout, gamma, gamma, sum, normed, {}, mean, rstd});
    }));
    bench.bytes_row(("its backward pass" + suffix).c_str(), 16.0 * double(count), bench.time([&] {
      bench.stream->residual_norm_backward(
          {normed, {}, dsum, sum, gamma, mean, rstd, dropout, dsum, in, dgamma, dbeta});
    }));
    bench.bytes_row(("GELU" + suffix).c_str(), 16.0 * double(count), bench.time([&] {
      bench.stream->activation_forward(Activation::gelu, wide, dropout, wide_out);
    }));
  }
}

class DropSink final : public GradientSink {  // consumes nothing: the price of folding is the difference
 public:
  void fold(int64_t, ConstView) override {}
  void fold_rows(int64_t, std::span<const int32_t>, ConstView) override {}
};

void measure_loss(Bench& bench) {
  const Buffer x = bench.random(DType::bf16, kTokens * kWidth),
               w = bench.random(DType::bf16, kVocabulary * kWidth),
               dx = bench.random(DType::bf16, kTokens * kWidth);
  const PackedWeight weight{w.data(), kVocabulary, kWidth, DType::bf16};
  std::vector<int32_t> targets;
  for (uint64_t i = 0; i < uint64_t(kTokens); ++i)
    targets.push_back(int32_t(mix64(1, i) % uint64_t(kVocabulary)));
  DropSink sink;
  bench.flops_row(
      "cross-entropy and its gradients, vocabulary 50257", 6.0 * kTokens * kWidth * kVocabulary,
      bench.time([&] {
        bench.stream->cross_entropy({matrix(x, DType::bf16, kTokens, kWidth), weight, targets.data(), 0.1f,
                                     matrix(dx, DType::bf16, kTokens, kWidth), &sink, 0});
      }));
}

void measure_sums(Bench& bench) {
  constexpr int64_t kElements = int64_t{64} << 20;
  BlockLayout layout;
  layout.append(kElements, kElements);
  DeviceAccumulator sums(*bench.stream, layout);
  DeviceTotal total(*bench.stream, layout);
  const Buffer g = bench.random(DType::f32, kElements), w = bench.random(DType::f32, kElements),
               m = bench.random(DType::f32, kElements), v = bench.random(DType::f32, kElements);
  bench.stream->fill_zero(matrix(v, DType::f32, 1, kElements));
  for (const int bits : {24, 8}) {
    DeviceSink sink(*bench.stream, sums, {bits, 8, 5});
    const std::string name = fmt::format("fold, {} bits", bits);
    bench.bytes_row(name.c_str(), 20.0 * kElements,
                    bench.time([&] { sink.fold(0, matrix(g, DType::f32, 1, kElements)); }));
  }
  sums.clear(*bench.stream);
  DeviceSink(*bench.stream, sums, {24, 8, 5}).fold(0, matrix(g, DType::f32, 1, kElements));
  bench.bytes_row("round the total", 12.0 * kElements, bench.time([&] {
    total.round(*bench.stream, sums, {24, 1});
  }));
  AdamW rule;
  rule.learning_rate = 1e-4f;
  bench.bytes_row("AdamW with dequantisation", 28.0 * kElements, bench.time([&] {
    bench.stream->adamw(
        rule, total, 0, layout.blocks(),
        {static_cast<float*>(w.data()), static_cast<float*>(m.data()), static_cast<float*>(v.data())});
  }));
}

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

void measure_step(Bench& bench, const Workload& w) {
  const auto model = model::make_model(w.config);
  model::StepOptions options;
  options.seed = 3;
  options.slots = w.slots;
  options.optimizer.schedule.peak = 1e-4;
  model::DeviceTrainer trainer(*bench.stream, *model, options);
  std::vector<Batch> batches;
  for (int slot = 0; slot < w.slots; ++slot) batches.push_back(random_batch(w, mix64(7, uint64_t(slot))));
  const auto source = [&](int64_t, uint32_t slot) { return batches[slot]; };
  const double tokens = double(w.sentences * w.length) * w.slots;
  const double flops = slot_flops(w, model->parameters()) * w.slots;
  const double ms = bench.time([&] { trainer.step(source); }, 5);
  fmt::print("| {}: step | {:.1f} ms | {:.0f} tokens/s | {:.0f} % of the bf16 product |\n", w.name, ms,
             tokens / ms * 1e3, 100 * flops / ms * 1e-9 / bench.bf16_tflop_s);
  BlockLayout layout = model->parameters().layout();
  DeviceAccumulator sums(*bench.stream, layout);
  DeviceSink exact(*bench.stream, sums, {24, w.slots, 1});
  DropSink none;
  const double with = bench.time([&] { trainer.run_slot(batches[0], {3, 0, 0}, exact); }, 9);
  const double without = bench.time([&] { trainer.run_slot(batches[0], {3, 0, 0}, none); }, 9);
  fmt::print("| {}: a slot with exact sums, and without | {:.2f} and {:.2f} ms | | {:.1f} % for the sums |\n",
             w.name, with, without, 100 * (with / without - 1));
  fmt::print("| {}: state, sums and totals | {:.2f} GB | | |\n", w.name,
             double(trainer.state_bytes()) * 1e-9);
}

void measure_graphs(const Workload& w) {
  const auto model = model::make_model(w.config);
  model::StepOptions options;
  options.seed = 3;
  options.slots = w.slots;
  std::vector<Batch> batches;
  for (int slot = 0; slot < w.slots; ++slot) batches.push_back(random_batch(w, mix64(7, uint64_t(slot))));
  bench::measure_graphs(w.name, *model, options, batches);
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

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("Measures Troupe on GPU 0 and prints the rows of docs/gpu.md.");
  bool quick = false;
  app.add_flag("--quick", quick, "operations and the same-bits rows alone");
  CLI11_PARSE(app, argc, argv);
  fmt::print("{}\n\n| what | time | rate | share |\n|---|---|---|---|\n",
             make_cuda_backend(0)->description());
  Bench bench;
  measure_ceilings(bench);
  measure_products(bench);
  measure_activations(bench);
  if (bench.multiplies_fp8()) measure_fp8(bench);
  measure_attention(bench, 0);
  measure_attention(bench, 0.1f);
  measure_rows(bench);
  measure_loss(bench);
  measure_sums(bench);
  Workload small{"small translation", {}, 16, 64, 4};
  small.config.compute = DType::bf16;
  measure_same_bits(small, 20, 20);
  measure_graphs(small);
  if (quick) return 0;
  Workload base{"base translation", {}, 128, 64, 4};
  base.config.vocabulary = 32000;
  base.config.width = 512;
  base.config.inner = 2048;
  base.config.encoder_layers = base.config.decoder_layers = 6;
  base.config.compute = DType::bf16;
  Workload gpt2{"GPT-2 124M", model::gpt2_config(12, 768, 12, 50257, 1024), 16, 1024, 2};
  gpt2.config.compute = DType::bf16;
  measure_step(bench, base);
  measure_graphs(base);
  measure_step(bench, gpt2);
  measure_graphs(gpt2);
  if (!bench.multiplies_fp8()) return 0;
  gpt2.name = "GPT-2 124M, fp8";
  gpt2.config.products = model::Products::fp8;
  measure_step(bench, gpt2);
  return 0;
} catch (const std::exception& failure) {
  fmt::print(stderr, "bench_gpu: {}\n", failure.what());
  return 1;
}
