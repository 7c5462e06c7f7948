#include "kernels/reference/linear.hpp"

#include <doctest/doctest.h>

#include "tests/kernels/packed.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

void check_shape(IsaLevel level, DType dtype, const LinearShape& s) {
  CAPTURE(to_string(level));
  CAPTURE(to_string(dtype));
  CAPTURE(s.M);
  CAPTURE(s.N);
  CAPTURE(s.K);
  CpuStream stream(level);
  const Matrix x = random_bf16(s.M, s.K, 1), w = random_bf16(s.N, s.K, 2), dy = random_bf16(s.M, s.N, 3);
  const Matrix bias = random_matrix(1, s.N, 4);
  Matrix y(s.M, s.N), dx(s.M, s.K), dw(s.N, s.K), dbias(1, s.N);
  reference::linear_forward(x.values.data(), w.values.data(), bias.values.data(), s.M, s.N, s.K,
                            y.values.data());
  reference::linear_backward_input(dy.values.data(), w.values.data(), s.M, s.N, s.K, dx.values.data());
  reference::linear_backward_weight(dy.values.data(), x.values.data(), s.M, s.N, s.K, dw.values.data(),
                                    dbias.values.data());
  const Packed packed(stream, w, dtype);
  const Strided x_in(dtype, x, s.gap), dy_in(dtype, dy, s.gap);
  for (const DType out : {dtype, DType::f32}) {
    const Strided y_out(out, s.M, s.N, s.gap), dx_out(out, s.M, s.K, s.gap);
    stream.linear_forward(x_in.view(), packed.weight, bias.view(), y_out.view());
    CHECK(distance(y_out.values(), y) < tolerance(out));
    stream.linear_backward_input(dy_in.view(), packed.weight, dx_out.view(), false);
    CHECK(distance(dx_out.values(), dx) < tolerance(out));
    stream.linear_backward_input(dy_in.view(), packed.weight, dx_out.view(), true);
    Matrix twice = dx;
    for (float& v : twice.values) v *= 2;
    CHECK(distance(dx_out.values(), twice) < tolerance(out));
  }
  Strided dw_out(DType::f32, s.N, s.K), dbias_out(DType::f32, 1, s.N);
  stream.linear_backward_weight(dy_in.view(), x_in.view(), dw_out.view(), dbias_out.view());
  CHECK(distance(dw_out.values(), dw) < tolerance(DType::f32));
  CHECK(distance(dbias_out.values(), dbias) < tolerance(DType::f32));
}

}  // namespace

TEST_CASE("linear agrees with plain loops at every level, type and odd shape") {
  for (const IsaLevel level : machine_levels())
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const LinearShape& shape : kLinearShapes) check_shape(level, dtype, shape);
}

TEST_CASE("linear without a bias is a plain product") {
  CpuStream stream(best_isa_level());
  const Matrix x = random_matrix(7, 9, 1), w = random_matrix(11, 9, 2);
  const Packed packed(stream, w, DType::f32);
  Matrix y(7, 11), expected(7, 11);
  stream.linear_forward(x.view(), packed.weight, {}, y.view());
  reference::linear_forward(x.values.data(), w.values.data(), nullptr, 7, 11, 9, expected.values.data());
  CHECK(distance(y, expected) < tolerance(DType::f32));
}

TEST_CASE("linear's gradients are those of its forward pass") {
  CpuStream stream(best_isa_level());
  const auto forward = [&](const std::vector<Matrix>& in) {
    const Packed packed(stream, in[1], DType::f32);
    Matrix y(in[0].rows, in[1].rows);
    stream.linear_forward(in[0].view(), packed.weight, in[2].view(), y.view());
    return y;
  };
  const auto backward = [&](const std::vector<Matrix>& in, const Matrix& dy, std::vector<Matrix>& d) {
    const Packed packed(stream, in[1], DType::f32);
    stream.linear_backward_input(dy.view(), packed.weight, d[0].view(), false);
    stream.linear_backward_weight(dy.view(), in[0].view(), d[1].view(), d[2].view());
  };
  const GradReport report = check_gradients(
      {random_matrix(13, 21, 1), random_matrix(18, 21, 2), random_matrix(1, 18, 3)}, forward, backward);
  INFO(report.where);
  CHECK(report.worst < 1e-4);
}

TEST_CASE("linear gives the same bits twice, also from another stream") {
  const Matrix x = random_bf16(65, 96, 1), w = random_bf16(48, 96, 2);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    std::vector<Matrix> results;
    for (int run = 0; run < 2; ++run) {
      CpuStream stream(best_isa_level());
      const Packed packed(stream, w, dtype);
      const Strided in(dtype, x);
      for (int call = 0; call < 2; ++call) {
        const Strided y(dtype, 65, 48);
        stream.linear_forward(in.view(), packed.weight, {}, y.view());
        results.push_back(y.values());
      }
    }
    for (const Matrix& result : results) CHECK(result.values == results[0].values);
  }
}

TEST_CASE("a product of mismatched shapes is refused") {
  CpuStream stream(best_isa_level());
  const Matrix w = random_matrix(4, 6, 2), x = random_matrix(3, 5, 1);
  const Packed packed(stream, w, DType::f32);
  Matrix y(3, 4);
  CHECK_THROWS_AS(stream.linear_forward(x.view(), packed.weight, {}, y.view()), CheckFailure);
}
