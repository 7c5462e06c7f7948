// What only a GPU can show. The table of operations (devices.hpp) runs there by itself; these cases are
// skipped, and counted as skipped, where there is none.
#include <array>

#include "kernels/cuda/backend.hpp"
#include "kernels/cuda/cuda_runtime.hpp"
#include "tests/kernels/devices.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

bool no_gpu() {
  const bool none = cuda_device_count() == 0;
  if (none)
    std::puts(
        "test_kernels: no GPU here: the table of operations runs on the CPU and the emulated device alone");
  return none;
}
const bool kNoGpu = no_gpu();

}  // namespace

TEST_CASE("the table of operations runs on the GPU too" * doctest::skip(kNoGpu)) {
  CHECK(other_test_devices().back()->name() == "GPU");
}

TEST_CASE("what makes two GPUs alike does not depend on the memory that a card reports" *
          doctest::skip(kNoGpu)) {
  MESSAGE(cuda_description(0));
  CHECK(cuda_numerics(0).find("MiB") == std::string::npos);
  const std::string card = cuda_description(0);
  CHECK(cuda_numerics(0).starts_with(card.substr(0, card.rfind(','))));
  CHECK_THROWS_AS(cuda_numerics(cuda_device_count()), Error);
}

TEST_CASE("more memory than a GPU has is refused with what was wanted and what is free" *
          doctest::skip(kNoGpu)) {
  const auto stream = make_cuda_stream(0);
  try {
    stream->runtime().allocate(size_t{1} << 50);
    FAIL("got a pebibyte");
  } catch (const Error& refusal) {
    CHECK(refusal.kind() == ErrorKind::out_of_memory);
    CHECK(std::string(refusal.what()).find(std::to_string(size_t{1} << 50)) != std::string::npos);
    CHECK(std::string(refusal.what()).find("are free") != std::string::npos);
  }
  CHECK(stream->runtime().allocate(1024).data() != nullptr);  // and the stream works on
}

TEST_CASE("copies larger than the pinned pieces arrive whole" * doctest::skip(kNoGpu)) {
  const auto stream = make_cuda_stream(0);
  std::vector<uint32_t> values((size_t{13} << 20) / 4 * 3 + 1), back(values.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = uint32_t(i * 2654435761u);
  const Buffer memory = stream->runtime().allocate(values.size() * 4);
  stream->runtime().copy_in(memory.data(), values.data(), values.size() * 4);
  stream->runtime().copy_out(back.data(), memory.data(), values.size() * 4);
  CHECK(values == back);
}

TEST_CASE("products, attention and cross-entropy give the same bits every time and on every stream" *
          doctest::skip(kNoGpu)) {
  constexpr int64_t kRows = 512, kWidth = 256, kHeads = 4, kVocabulary = 5003;
  const Matrix x = random_bf16(kRows, kWidth, 1), w = random_bf16(kVocabulary, kWidth, 2);
  std::vector<int32_t> targets;
  for (int64_t i = 0; i < kRows; ++i) targets.push_back(int32_t(i * 37 % kVocabulary));
  std::array<Results, 2> first;  // by our own kernels, as there is dropout, and by cuDNN's
  std::unique_ptr<TestDevice> device;
  for (int run = 0; run < 40; ++run) {
    const float rate = run % 2 == 0 ? 0.1f : 0;
    if (run % 8 == 0) device = gpu_test_device();
    AttentionShape shape{2, kRows / 2, kRows / 2, kHeads, kWidth / kHeads, true, nullptr, false, {rate, 3}};
    const PlacedWeight packed(*device, w, DType::bf16);
    const Placed in(*device, DType::bf16, x), out(*device, DType::bf16, kRows, kWidth),
        lse(*device, DType::f32, 2 * kHeads, kRows / 2), dq(*device, DType::bf16, kRows, kWidth),
        dk(*device, DType::bf16, kRows, kWidth), dv(*device, DType::bf16, kRows, kWidth),
        dx(*device, DType::bf16, kRows, kWidth);
    Stream& stream = device->stream();
    stream.attention_forward(shape, in.view(), in.view(), in.view(), out.view(), lse.view());
    stream.attention_backward(shape, in.view(), in.view(), in.view(), out.view(), lse.view(), in.view(),
                              dq.view(), dk.view(), dv.view());
    HostSink sink(*device, kVocabulary, kWidth);
    const LossSums sums =
        stream.cross_entropy({out.view(), packed.weight, targets.data(), 0.1f, dx.view(), &sink, 0});
    const Results results{out.values(),
                          dq.values(),
                          dk.values(),
                          dv.values(),
                          dx.values(),
                          sink.sums,
                          Matrix(1, 1, float(sums.loss))};
    if (run < 2) first[size_t(run)] = results;
    for (size_t i = 0; i < results.size(); ++i) CHECK(same_bits(results[i], first[size_t(run % 2)][i]));
  }
}

#if defined(TROUPE_CUDNN)
TEST_CASE("attention of whole blocks is cuDNN's, and its gradient before compute capability 10" *
          doctest::skip(kNoGpu)) {
  const auto stream = make_cuda_stream(0);
  MESSAGE(cuda_numerics(0));
  FusedAttention a;
  a.batch = 2;
  a.queries = a.keys = 256;
  a.heads = 4;
  a.head_size = 64;
  a.causal = true;
  for (FusedAttention::Rows* rows : {&a.q, &a.k, &a.v, &a.out, &a.dout, &a.dq, &a.dk, &a.dv})
    rows->stride = 256;
  CHECK(stream->runtime().attention_workspace(a));
  a.is_gradient = true;
  CHECK(stream->runtime().attention_workspace(a).has_value() == (cuda_capability(0) < 100));
}
#endif

TEST_CASE("products with activations, column sums and fp8 give the same bits every time and on every stream" *
          doctest::skip(kNoGpu)) {
  constexpr int64_t kRows = 1000, kWidth = 256, kInner = 1024;
  const Matrix x = random_bf16(kRows, kWidth, 1), w = random_bf16(kInner, kWidth, 2, 0.1f),
               outer = random_bf16(kWidth, kInner, 3, 0.1f), bias = random_bf16(1, kInner, 4);
  for (const Packing packing : {Packing::training, Packing::fp8}) {
    Results first;
    for (int run = 0; run < 20; ++run) {
      const auto device = gpu_test_device();
      Stream& stream = device->stream();
      const PackedType type(DType::bf16, packing);
      try {
        stream.packed_bytes(kInner, kWidth, type);
      } catch (const Error& none) {
        MESSAGE("not tested: ", std::string(none.what()));
        break;
      }
      const PlacedWeight up(*device, w, type), down(*device, outer, type);
      const Placed in(*device, DType::bf16, x), b(*device, DType::f32, bias),
          pre(*device, DType::bf16, kRows, kInner), y(*device, DType::bf16, kRows, kInner),
          dpre(*device, DType::bf16, kRows, kInner), dx(*device, DType::bf16, kRows, kWidth),
          dw(*device, DType::f32, kInner, kWidth), db(*device, DType::f32, 1, kInner);
      const FusedActivation gelu{Activation::gelu, {}, pre.view()};
      stream.linear_activation_forward(in.view(), up.weight, b.view(), gelu, y.view());
      stream.linear_activation_backward_input(in.view(), down.weight, gelu, dpre.view());
      stream.linear_backward_weight(dpre.view(), in.view(), dw.view(), db.view());
      stream.linear_backward_input(dpre.view(), up.weight, dx.view(), false);
      const Results results{pre.values(), y.values(), dpre.values(), dx.values(), dw.values(), db.values()};
      if (run == 0) first = results;
      for (size_t i = 0; i < results.size(); ++i) CHECK(same_bits(results[i], first[i]));
    }
  }
}

TEST_CASE("shapes of real models agree with the CPU on the GPU" * doctest::skip(kNoGpu)) {
  constexpr int64_t kBatch = 2, kLength = 777, kHeads = 4, kHead = 64, kWidth = kHeads * kHead,
                    kVocabulary = 50257;
  constexpr int64_t kRows = kBatch * kLength;
  const Matrix x = random_bf16(kRows, kWidth, 1), d = random_bf16(kRows, kWidth, 2),
               w = random_bf16(kVocabulary, kWidth, 3, 0.1f), gamma = random_matrix(1, kWidth, 4);
  std::vector<int32_t> targets;
  for (int64_t i = 0; i < kRows; ++i) targets.push_back(int32_t(i * 7919 % kVocabulary));
  for (const DType dtype : {DType::bf16, DType::f32}) {
    CAPTURE(to_string(dtype));
    const auto run = [&](TestDevice& device) {
      Stream& stream = device.stream();
      const PlacedWeight packed(device, w, dtype);
      const Placed in(device, dtype, x), dout(device, dtype, d), out(device, dtype, kRows, kWidth),
          lse(device, DType::f32, kBatch * kHeads, kLength), dq(device, dtype, kRows, kWidth),
          dk(device, dtype, kRows, kWidth), dv(device, dtype, kRows, kWidth),
          dx(device, dtype, kRows, kWidth), sum(device, DType::f32, kRows, kWidth),
          residual(device, DType::f32, d), g(device, DType::f32, gamma), normed(device, dtype, kRows, kWidth),
          stats(device, DType::f32, 2, kRows);
      const AttentionShape shape{kBatch, kLength, kLength, kHeads, kHead, true, nullptr, false, {0.1f, 3}};
      stream.attention_forward(shape, in.view(), in.view(), in.view(), out.view(), lse.view());
      stream.attention_backward(shape, in.view(), in.view(), in.view(), out.view(), lse.view(), dout.view(),
                                dq.view(), dk.view(), dv.view());
      stream.residual_norm_forward({residual.view(),
                                    in.view(),
                                    {0.1f, 5},
                                    g.view(),
                                    g.view(),
                                    sum.view(),
                                    normed.view(),
                                    {},
                                    stats.view().row_range(0, 1),
                                    stats.view().row_range(1, 1)});
      HostSink sink(device, kVocabulary, kWidth);
      const LossSums sums =
          stream.cross_entropy({in.view(), packed.weight, targets.data(), 0.1f, dx.view(), &sink, 0});
      return Results{out.values(),    dq.values(), dk.values(), dv.values(),
                     normed.values(), dx.values(), sink.sums,   Matrix(1, 1, float(sums.loss))};
    };
    const Results expected = run(*cpu_test_device()), actual = run(*gpu_test_device());
    for (size_t i = 0; i < expected.size(); ++i) {
      CAPTURE(i);
      CHECK(distance(actual[i], expected[i]) < 4 * tolerance(dtype) + 1e-5);
    }
  }
}
