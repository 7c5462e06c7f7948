// Speed of the CPU kernels on one thread, for the shapes of `small` and `base`. Counters: GFLOP/s, and
// `share` of the best product oneDNN does in the same run with weights in its own blocked layout. Usage:
// bench_kernels [--benchmark_filter=REGEX] (Google Benchmark's flags)
#include <algorithm>
#include <chrono>
#include <vector>

#include <benchmark/benchmark.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>

#include "bench/matrices.hpp"
#include "bench/products.hpp"

namespace {

using namespace troupe;
using namespace troupe::kernels;

double measure_best_rate(dnnl::memory::data_type type) {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  double best = 0;
  for (const int64_t k : {256, 1024}) {
    const int64_t m = 1024, n = 1024;
    using tag = dnnl::memory::format_tag;
    const dnnl::memory::desc x({m, k}, type, tag::ab), w({k, n}, type, tag::any), y({m, n}, type, tag::ab);
    const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(x, w, y), engine);
    const dnnl::memory xs(desc.src_desc(), engine), ws(desc.weights_desc(), engine),
        ys(desc.dst_desc(), engine);
    dnnl::matmul product(desc);
    for (int i = 0; i < 30; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      product.execute(stream, {{DNNL_ARG_SRC, xs}, {DNNL_ARG_WEIGHTS, ws}, {DNNL_ARG_DST, ys}});
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      best = std::max(best, 2.0 * double(m * n * k) / seconds);
    }
  }
  return best;
}

double best_rate(DType dtype) {
  static const double f32 = measure_best_rate(dnnl::memory::data_type::f32);
  static const double bf16 =
      bench::multiplies_bf16() ? measure_best_rate(dnnl::memory::data_type::bf16) : f32;
  return dtype == DType::bf16 ? bf16 : f32;
}

void report(benchmark::State& state, double flops, DType dtype) {
  using benchmark::Counter;
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["share"] = Counter(flops / best_rate(dtype), Counter::kIsIterationInvariantRate);
}

DType dtype_of_state(const benchmark::State& state, int index) {
  return state.range(index) == 16 ? DType::bf16 : DType::f32;
}

enum Pass { kForward, kBackwardInput, kBackwardWeight };

template <Pass pass>
void linear(benchmark::State& state) {
  const int64_t M = state.range(0), N = state.range(1), K = state.range(2);
  const DType dtype = dtype_of_state(state, 3);
  bench::Matrices bench;
  const View x = bench.matrix(dtype, M, K), y = bench.matrix(dtype, M, N),
             bias = bench.matrix(DType::f32, 1, N);
  const View dw = bench.matrix(DType::f32, N, K);
  const PackedWeight w = bench.weight(dtype, N, K);
  for (auto _ : state) {
    if (pass == kForward) bench.stream().linear_forward(x, w, bias, y);
    if (pass == kBackwardInput) bench.stream().linear_backward_input(y, w, x, false);
    if (pass == kBackwardWeight) bench.stream().linear_backward_weight(y, x, dw, bias);
  }
  report(state, 2.0 * double(M * N * K), dtype);
}

void linear_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "N", "K", "bits"});
  for (const int64_t bits : {16, 32}) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{256, 256}, {768, 256}, {1024, 256}, {256, 1024}})
      for (const int64_t m : {512, 4096}) b->Args({m, n, k, bits});
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{512, 512}, {1536, 512}, {2048, 512}, {512, 2048}})
      b->Args({512, n, k, bits});
  }
}
BENCHMARK(linear<kForward>)->Apply(linear_shapes);
BENCHMARK(linear<kBackwardInput>)->Apply(linear_shapes);
BENCHMARK(linear<kBackwardWeight>)->Apply(linear_shapes);

// Products of translation: few rows, weights packed for inference; rows of int8 weights come in bf16.
void inference(benchmark::State& state) {
  const int64_t M = state.range(0), N = state.range(1), K = state.range(2);
  const bool int8 = state.range(3) == 8;
  const DType dtype = int8 ? DType::bf16 : dtype_of_state(state, 3);
  bench::Matrices bench;
  const View x = bench.matrix(dtype, M, K), y = bench.matrix(dtype, M, N);
  const PackedWeight w = bench.weight({int8 ? DType::i8 : dtype, Packing::inference}, N, K);
  for (auto _ : state) bench.stream().linear_forward(x, w, {}, y);
  report(state, 2.0 * double(M * N * K), dtype);
}
BENCHMARK(inference)->Apply([](benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "N", "K", "bits"});
  for (const int64_t bits : {8, 16, 32})
    for (const int64_t m : {1, 64, 256})
      for (const auto& [n, k] :
           {std::pair<int64_t, int64_t>{256, 256}, {512, 512}, {2048, 512}, {512, 2048}, {32000, 512}})
        b->Args({m, n, k, bits});
});

template <bool backward>
void attention(benchmark::State& state) {
  AttentionShape shape;
  shape.batch = state.range(0);
  shape.queries = shape.keys = state.range(1);
  shape.heads = state.range(2);
  shape.head_size = state.range(3);
  shape.causal = state.range(4) != 0;
  shape.dropout.rate = float(state.range(5)) / 100;
  const DType dtype = dtype_of_state(state, 6);
  bench::Matrices bench;
  const int64_t rows = shape.batch * shape.queries, C = shape.heads * shape.head_size;
  const View qkv = bench.matrix(dtype, rows, 3 * C), dqkv = bench.matrix(dtype, rows, 3 * C);
  const View out = bench.matrix(dtype, rows, C), dout = bench.matrix(dtype, rows, C);
  const View lse = bench.matrix(DType::f32, shape.batch * shape.heads, shape.queries);
  const auto part = [C](View v, int64_t i) { return v.col_range(i * C, C); };
  bench.stream().attention_forward(shape, part(qkv, 0), part(qkv, 1), part(qkv, 2), out, lse);
  for (auto _ : state) {
    if (backward)
      bench.stream().attention_backward(shape, part(qkv, 0), part(qkv, 1), part(qkv, 2), out, lse, dout,
                                        part(dqkv, 0), part(dqkv, 1), part(dqkv, 2));
    else
      bench.stream().attention_forward(shape, part(qkv, 0), part(qkv, 1), part(qkv, 2), out, lse);
  }
  const double seen = shape.causal ? 0.5 * double(shape.keys + 1) : double(shape.keys);
  report(state, (backward ? 10.0 : 4.0) * double(rows * C) * seen, DType::f32);
}

void attention_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"B", "T", "H", "D", "causal", "drop%", "bits"});
  for (const int64_t bits : {16, 32}) {
    b->Args({16, 32, 8, 32, 0, 10, bits});
    b->Args({8, 64, 8, 32, 0, 0, bits});
    b->Args({8, 64, 8, 32, 0, 10, bits});
    b->Args({8, 64, 8, 32, 1, 10, bits});
    b->Args({2, 256, 8, 32, 0, 10, bits});
    b->Args({8, 64, 8, 64, 0, 10, bits});
    b->Args({1, 1024, 12, 64, 1, 10, bits});
  }
}
BENCHMARK(attention<false>)->Apply(attention_shapes);
BENCHMARK(attention<true>)->Apply(attention_shapes);

class Discard final : public GradientSink {
 public:
  void fold(int64_t, ConstView gradient) override { benchmark::DoNotOptimize(gradient.data); }
};

void cross_entropy(benchmark::State& state) {
  const int64_t M = state.range(0), V = state.range(1), C = state.range(2);
  const DType dtype = dtype_of_state(state, 3);
  bench::Matrices bench;
  const View x = bench.matrix(dtype, M, C), dx = bench.matrix(dtype, M, C);
  const PackedWeight w = bench.weight(dtype, V, C);
  std::vector<int32_t> targets(size_t(M), 0);
  for (int64_t m = 0; m < M; ++m) targets[size_t(m)] = int32_t(m * 31 % V);
  Discard sink;
  for (auto _ : state)
    benchmark::DoNotOptimize(bench.stream().cross_entropy({x, w, targets.data(), 0.1f, dx, &sink, 0}));
  report(state, 6.0 * double(M * V * C), dtype);  // what must be done; recomputed products do not count
}
BENCHMARK(cross_entropy)
    ->ArgNames({"M", "V", "C", "bits"})
    ->Args({512, 8192, 256, 16})
    ->Args({1024, 8192, 256, 16})
    ->Args({4096, 8192, 256, 16})
    ->Args({256, 32000, 512, 16})
    ->Args({1024, 32000, 512, 16})
    ->Args({512, 8192, 256, 32});

}  // namespace

int main(int argc, char** argv) {
  omp_set_num_threads(1);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  make_cpu_backend();
  benchmark::AddCustomContext("best bf16 GFLOP/s", std::to_string(best_rate(DType::bf16) * 1e-9));
  benchmark::AddCustomContext("best f32 GFLOP/s", std::to_string(best_rate(DType::f32) * 1e-9));
  benchmark::RunSpecifiedBenchmarks();
}
