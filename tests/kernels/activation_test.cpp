#include "kernels/reference/activation.hpp"

#include <doctest/doctest.h>

#include "kernels/dropout.hpp"
#include "tests/kernels/levels.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

Matrix forward(IsaLevel level, Activation kind, DType dtype, const Matrix& x, Dropout dropout, int64_t gap) {
  CpuStream stream(level);
  const Strided in(dtype, x, gap), out(dtype, x.rows, x.cols, gap / 2);
  stream.activation_forward(kind, in.view(), dropout, out.view());
  return out.values();
}

Matrix backward(IsaLevel level, Activation kind, DType dtype, const Matrix& x, const Matrix& dy,
                Dropout dropout, int64_t gap) {
  CpuStream stream(level);
  const Strided in(dtype, x, gap), d(dtype, dy, gap);
  stream.activation_backward(kind, in.view(), dropout, d.view(), d.view());
  return d.values();
}

}  // namespace

TEST_CASE("ReLU and GELU with dropout follow the reference at odd shapes, types and levels") {
  struct Shape {
    int64_t rows, cols, gap;
  };
  for (const Shape& s : {Shape{0, 5, 0}, Shape{1, 1, 0}, Shape{3, 17, 4}, Shape{2, 1030, 0}, Shape{5, 48, 2}})
    for (Activation kind : {Activation::relu, Activation::gelu})
      for (DType dtype : {DType::f32, DType::bf16})
        for (float rate : {0.0f, 0.4f}) {
          const Matrix x = random_bf16(s.rows, s.cols, 1, 4), dy = random_bf16(s.rows, s.cols, 2);
          const Dropout dropout{rate, 17};
          Matrix y(s.rows, s.cols), dx(s.rows, s.cols);
          for (size_t i = 0; i < y.values.size(); ++i) {
            const double factor = double(dropout_factor(dropout, i)), at = double(x.values[i]);
            y.values[i] = float(reference::activation(kind, at) * factor);
            dx.values[i] = float(reference::activation_slope(kind, at) * double(dy.values[i]) * factor);
          }
          std::vector<Matrix> results;
          for (IsaLevel level : machine_levels()) {
            results.push_back(forward(level, kind, dtype, x, dropout, s.gap));
            CHECK(distance(results.back(), y) < tolerance(dtype));
            CHECK(distance(backward(level, kind, dtype, x, dy, dropout, s.gap), dx) < tolerance(dtype));
            if (kind == Activation::relu || (level != IsaLevel::v2 && results.size() > 2))
              CHECK(results.back().values == results[kind == Activation::relu ? 0 : 1].values);
          }
        }
}

TEST_CASE("the gradients of ReLU and GELU pass the numeric check") {
  for (Activation kind : {Activation::relu, Activation::gelu}) {
    const Dropout dropout{0.3f, 2};
    Matrix x = random_matrix(9, 13, 5, 3);
    for (float& v : x.values)
      if (std::abs(v) < 0.2f) v = 0.5f;  // away from the corner of ReLU
    const auto value = [&](const std::vector<Matrix>& in) {
      return forward(best_isa_level(), kind, DType::f32, in[0], dropout, 0);
    };
    const auto gradient = [&](const std::vector<Matrix>& in, const Matrix& dout, std::vector<Matrix>& din) {
      din[0] = backward(best_isa_level(), kind, DType::f32, in[0], dout, dropout, 0);
    };
    const GradReport report = check_gradients({x}, value, gradient);
    INFO(report.where);
    CHECK(report.worst < 1e-3);
  }
}

TEST_CASE("activations keep NaN, and refuse unequal shapes") {
  Matrix x(1, 40, 1), y(1, 41);
  x.values[20] = NAN;
  for (IsaLevel level : machine_levels())
    for (Activation kind : {Activation::relu, Activation::gelu})
      CHECK(std::isnan(forward(level, kind, DType::f32, x, {}, 0).values[20]));
  CpuStream stream(best_isa_level());
  CHECK_THROWS_AS(stream.activation_forward(Activation::relu, x.view(), {}, y.view()), CheckFailure);
}
