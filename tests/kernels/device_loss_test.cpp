#include <limits>

#include "tests/kernels/devices.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

Matrix numbers(const LossSums& sums) {
  Matrix m(1, 4);
  m.values = {float(sums.loss), float(sums.nll), float(sums.tokens), float(sums.correct)};
  return m;
}

}  // namespace

TEST_CASE("cross-entropy and its gradients agree with the CPU on every device, in one block and in several") {
  struct Case {
    int64_t M, V, C;
    float smoothing;
    int64_t gap;
  };
  for (const Case& c :
       {Case{0, 5, 3, 0.1f, 0}, Case{1, 1, 1, 0.0f, 0}, Case{1, 17, 5, 0.1f, 2}, Case{3, 130, 16, 0.0f, 0},
        Case{33, 1000, 24, 0.1f, 0}, Case{70, 4200, 8, 0.1f, 1}, Case{300, 900, 8, 0.05f, 0}})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      CAPTURE(c.M);
      CAPTURE(c.V);
      CAPTURE(to_string(dtype));
      const Matrix x = random_bf16(c.M, c.C, 1, 2), w = random_bf16(c.V, c.C, 2);
      std::vector<int32_t> targets;
      for (int64_t m = 0; m < c.M; ++m) targets.push_back(m % 5 == 3 ? -1 : int32_t((m * 37 + 11) % c.V));
      check_devices(
          [&](TestDevice& device) {
            const PlacedWeight packed(device, w, dtype);
            const Placed in(device, dtype, x, c.gap), dx(device, dtype, c.M, c.C, c.gap);
            HostSink sink(device, 1, 512 + c.V * c.C);
            const LossSums sums = device.stream().cross_entropy(
                {in.view(), packed.weight, targets.data(), c.smoothing, dx.view(), &sink, 512});
            const LossSums forward = device.stream().cross_entropy(
                {in.view(), packed.weight, targets.data(), c.smoothing, {}, nullptr, 0});
            CHECK(forward.loss == sums.loss);
            return Results{numbers(sums), dx.values(), sink.sums};
          },
          {1e-6, 2 * tolerance(dtype)});
    }
}

TEST_CASE(
    "a logit that is not finite makes the loss not finite, and targets beyond the vocabulary are refused") {
  Matrix x = random_matrix(2, 4, 1);
  const Matrix w = random_matrix(40, 4, 2);
  x.values[1] = std::numeric_limits<float>::quiet_NaN();
  for (const auto& device : other_test_devices()) {
    CAPTURE(device->name());
    const PlacedWeight packed(*device, w, DType::f32);
    const Placed in(*device, DType::f32, x);
    const std::vector<int32_t> targets = {1, 2}, wrong = {1, 40};
    CHECK(!std::isfinite(device->stream()
                             .cross_entropy({in.view(), packed.weight, targets.data(), 0.1f, {}, nullptr, 0})
                             .loss));
    CHECK_THROWS_AS(
        device->stream().cross_entropy({in.view(), packed.weight, wrong.data(), 0.1f, {}, nullptr, 0}),
        CheckFailure);
  }
}

TEST_CASE("the largest log-softmax values come sorted, ties by id, on every device") {
  for (const int64_t cols : {1, 2, 31, 32, 33, 256, 257, 1003})
    for (const int64_t k : {1, 2, 4, 17})
      for (const bool ties : {false, true}) {
        if (k > cols) continue;
        CAPTURE(cols);
        CAPTURE(k);
        Matrix logits = random_matrix(3, cols, 1, 4);
        for (float& v : logits.values) v = ties ? float(int(v)) : v;
        check_devices(
            [&](TestDevice& device) {
              const Placed in(device, DType::f32, logits, 3), values(device, DType::f32, 3, k);
              const Buffer memory = device.allocate(size_t(3 * k) * sizeof(int32_t));
              device.stream().log_softmax_topk(in.view(), k, values.view(),
                                               view_of(static_cast<int32_t*>(memory.data()), 3, k));
              std::vector<int32_t> ids(size_t(3 * k));
              device.copy_out(ids.data(), memory.data(), ids.size() * sizeof(int32_t));
              Matrix found(3, k);
              for (size_t i = 0; i < ids.size(); ++i) found.values[i] = float(ids[i]);
              return Results{found, values.values()};
            },
            {kSameBits, 2e-6});
      }
}
