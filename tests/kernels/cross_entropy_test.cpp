#include "kernels/reference/cross_entropy.hpp"

#include <limits>

#include <doctest/doctest.h>

#include "tests/kernels/levels.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

// Puts the blocks of dW where they belong, and counts them.
class Gather final : public GradientSink {
 public:
  Gather(int64_t rows, int64_t cols, int64_t begin) : dw(rows, cols), begin_(begin) {}
  void fold(int64_t offset, ConstView gradient) override {
    REQUIRE(gradient.contiguous());
    REQUIRE(offset >= begin_);
    REQUIRE(offset - begin_ + gradient.size() <= int64_t(dw.values.size()));
    std::copy_n(gradient.as<float>(), gradient.size(), dw.values.begin() + (offset - begin_));
    elements += gradient.size();
  }
  Matrix dw;
  int64_t elements = 0;

 private:
  int64_t begin_;
};

struct Case {
  int64_t M, V, C;
  float smoothing;
  int64_t gap;
};
constexpr Case kCases[] = {{0, 5, 3, 0.1f, 0},      {1, 1, 1, 0.0f, 0},        {1, 17, 5, 0.1f, 2},
                           {3, 130, 16, 0.0f, 0},   {33, 1000, 24, 0.1f, 0},   {70, 4200, 32, 0.1f, 1},
                           {70, 4203, 31, 0.1f, 1}, {300, 2000, 16, 0.05f, 0}, {900, 6000, 8, 0.1f, 0}};
// Of exponentials: all of every case, some of the last two, none.
constexpr int64_t kKeptBytes[] = {CpuLimits().kept_bytes, 1 << 20, 0};

struct Problem {
  explicit Problem(const Case& c) : x(random_bf16(c.M, c.C, 1, 2)), w(random_bf16(c.V, c.C, 2)) {
    for (int64_t m = 0; m < c.M; ++m) targets.push_back(m % 5 == 3 ? -1 : int32_t((m * 37 + 11) % c.V));
    if (c.M > 1) targets.back() = int32_t(c.V - 1);
  }
  Matrix x, w;
  std::vector<int32_t> targets;
};

void check_case(IsaLevel level, int64_t kept_bytes, DType dtype, const Case& c) {
  CAPTURE(to_string(level));
  CAPTURE(kept_bytes);
  CAPTURE(to_string(dtype));
  CAPTURE(c.M);
  CAPTURE(c.V);
  const Problem problem(c);
  Matrix dx(c.M, c.C), dw(c.V, c.C);
  const LossSums expected =
      reference::cross_entropy(problem.x.values.data(), problem.w.values.data(), problem.targets.data(),
                               double(c.smoothing), c.M, c.V, c.C, dx.values.data(), dw.values.data());
  CpuStream stream(level, {kept_bytes});
  const Buffer memory = allocate_host(stream.packed_bytes(c.V, c.C, dtype));
  const PackedWeight weight = stream.pack(problem.w.view(), dtype, memory.data());
  const Strided x_in(dtype, problem.x, c.gap), dx_out(dtype, c.M, c.C, c.gap);
  Gather sink(c.V, c.C, 512);
  const LossSums sums = stream.cross_entropy(
      {x_in.view(), weight, problem.targets.data(), c.smoothing, dx_out.view(), &sink, 512});
  CHECK(sums.tokens == expected.tokens);
  CHECK(sums.correct == expected.correct);
  CHECK(sums.loss == doctest::Approx(expected.loss).epsilon(1e-6));
  CHECK(sums.nll == doctest::Approx(expected.nll).epsilon(1e-6));
  CHECK(sink.elements == c.V * c.C);
  CHECK(distance(dx_out.values(), dx) < tolerance(dtype));
  CHECK(distance(sink.dw, dw) < tolerance(dtype));
  const LossSums forward =
      stream.cross_entropy({x_in.view(), weight, problem.targets.data(), c.smoothing, {}, nullptr, 0});
  CHECK(forward.loss == sums.loss);
}

}  // namespace

TEST_CASE("cross-entropy agrees with plain loops at every level, type and odd shape") {
  for (const IsaLevel level : machine_levels())
    for (const int64_t kept_bytes : kKeptBytes)
      for (const DType dtype : {DType::f32, DType::bf16})
        for (const Case& c : kCases) check_case(level, kept_bytes, dtype, c);
}

TEST_CASE("cross-entropy's gradients are those of its loss") {
  CpuStream stream(best_isa_level());
  const std::vector<int32_t> targets = {3, -1, 0, 52, 17};
  const auto run = [&](const std::vector<Matrix>& in, View dx, GradientSink* sink) {
    const Buffer memory = allocate_host(stream.packed_bytes(in[1].rows, in[1].cols, DType::f32));
    const PackedWeight weight = stream.pack(in[1].view(), DType::f32, memory.data());
    return stream.cross_entropy({in[0].view(), weight, targets.data(), 0.1f, dx, sink, 0});
  };
  const GradReport report = check_gradients(
      {random_matrix(5, 12, 1), random_matrix(53, 12, 2)},
      [&](const std::vector<Matrix>& in) { return Matrix(1, 1, float(run(in, {}, nullptr).loss)); },
      [&](const std::vector<Matrix>& in, const Matrix& dloss, std::vector<Matrix>& d) {
        Gather sink(53, 12, 0);
        run(in, d[0].view(), &sink);
        d[1] = sink.dw;
        for (Matrix& gradient : d)
          for (float& v : gradient.values) v *= dloss.values[0];
      });
  INFO(report.where);
  CHECK(report.worst < 1e-3);
}

TEST_CASE("a logit that is not finite makes the loss not finite") {
  CpuStream stream(best_isa_level());
  Matrix x = random_matrix(2, 4, 1), w = random_matrix(40, 4, 2);
  x.values[1] = std::numeric_limits<float>::quiet_NaN();
  const Buffer memory = allocate_host(stream.packed_bytes(40, 4, DType::f32));
  const std::vector<int32_t> targets = {1, 2};
  const LossSums sums = stream.cross_entropy(
      {x.view(), stream.pack(w.view(), DType::f32, memory.data()), targets.data(), 0.1f, {}, nullptr, 0});
  CHECK(!std::isfinite(sums.loss));
}

TEST_CASE("cross-entropy gives the same bits twice and refuses a target outside the vocabulary") {
  const Problem problem(kCases[5]);
  std::vector<std::vector<float>> results;
  for (int run = 0; run < 2; ++run) {
    CpuStream stream(best_isa_level());
    const Buffer memory = allocate_host(stream.packed_bytes(4200, 32, DType::bf16));
    const PackedWeight weight = stream.pack(problem.w.view(), DType::bf16, memory.data());
    const Strided x(DType::bf16, problem.x), dx(DType::bf16, 70, 32);
    Gather sink(4200, 32, 0);
    const LossSums sums =
        stream.cross_entropy({x.view(), weight, problem.targets.data(), 0.1f, dx.view(), &sink, 0});
    results.push_back(sink.dw.values);
    const Matrix dx_values = dx.values();
    results.back().insert(results.back().end(), dx_values.values.begin(), dx_values.values.end());
    results.back().push_back(float(sums.loss));
    const std::vector<int32_t> wrong(70, 4200);
    CHECK_THROWS_AS(stream.cross_entropy({x.view(), weight, wrong.data(), 0.1f, {}, nullptr, 0}),
                    CheckFailure);
  }
  CHECK(results[0] == results[1]);
}
