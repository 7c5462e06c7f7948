#include "kernels/cuda/plain_product.hpp"
#include "tests/kernels/devices.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

Matrix around(float center, Matrix m) {
  for (float& v : m.values) v += center;
  return m;
}

}  // namespace

TEST_CASE("products, their gradients and column sums agree with the CPU on every device") {
  struct Shape {
    int64_t M, N, K, gap;
  };
  for (const Shape& s : {Shape{0, 4, 3, 0}, Shape{1, 1, 1, 0}, Shape{2, 3, 5, 3}, Shape{17, 33, 31, 0},
                         Shape{33, 16, 64, 8}, Shape{100, 40, 24, 0}, Shape{4500, 8, 8, 0}})
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const DType out : {DType::f32, dtype}) {
        CAPTURE(s.M);
        CAPTURE(s.N);
        CAPTURE(to_string(dtype));
        CAPTURE(to_string(out));
        const Matrix x = random_bf16(s.M, s.K, 1), w = random_bf16(s.N, s.K, 2), d = random_bf16(s.M, s.N, 3),
                     bias = random_bf16(1, s.N, 4);
        check_devices(
            [&](TestDevice& device) {
              Stream& stream = device.stream();
              const PlacedWeight packed(device, w, dtype);
              const Placed in(device, dtype, x, s.gap), dy(device, dtype, d, s.gap),
                  b(device, DType::f32, bias), y(device, out, s.M, s.N, s.gap), plain(device, out, s.M, s.N),
                  dx(device, out, s.M, s.K, s.gap), dw(device, DType::f32, s.N, s.K),
                  db(device, DType::f32, 1, s.N);
              stream.linear_forward(in.view(), packed.weight, b.view(), y.view());
              stream.linear_forward(in.view(), packed.weight, {}, plain.view());
              stream.linear_backward_input(dy.view(), packed.weight, dx.view(), false);
              const Matrix once = dx.values();
              stream.linear_backward_input(dy.view(), packed.weight, dx.view(), true);
              stream.linear_backward_weight(dy.view(), in.view(), dw.view(), db.view());
              return Results{y.values(), plain.values(), once, dx.values(), dw.values(), db.values()};
            },
            {tolerance(out), tolerance(out), tolerance(out), tolerance(out),
             // Tensor cores cut off what they add: thousands of rows add up.
             dtype == DType::bf16 ? 4 * tolerance(DType::f32) : tolerance(DType::f32)});
      }
}

TEST_CASE("products without an algorithm of the library's agree with those that have one, on every device") {
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      for (const DType dtype : {DType::f32, DType::bf16})
        for (const DType out : {DType::f32, dtype})
          for (const bool accumulate : {false, true}) {
            constexpr int64_t m = 37, n = 19, k = 23;
            CAPTURE(transpose_a);
            CAPTURE(transpose_b);
            CAPTURE(to_string(dtype));
            CAPTURE(to_string(out));
            // Row-major with a gap of 3: column-major transposes with leading dimension cols + 3.
            const Matrix a = transpose_a ? random_bf16(m, k, 1) : random_bf16(k, m, 1),
                         b = transpose_b ? random_bf16(k, n, 2) : random_bf16(n, k, 2),
                         before = random_bf16(n, m, 3), bias = random_bf16(1, m, 4);
            for (const auto& device : other_test_devices()) {
              const Placed in_a(*device, dtype, a, 3), in_b(*device, dtype, b, 3), d(*device, out, before, 5),
                  expected(*device, out, before, 5), row(*device, out, bias);
              Product p;
              p.m = m;
              p.n = n;
              p.k = k;
              p.a = {in_a.view().data, a.cols, a.rows, a.cols + 3, transpose_a, dtype};
              p.b = {in_b.view().data, b.cols, b.rows, b.cols + 3, transpose_b, dtype};
              p.leading = m + 5;
              p.dtype = out;
              p.bias = accumulate ? nullptr : row.view().data;
              p.accumulate = accumulate;
              p.d = expected.view().data;
              device->cuda()->runtime().multiply(p);
              p.d = d.view().data;
              multiply_plainly(device->cuda()->runtime(), p);
              CHECK(distance(d.values(), expected.values()) < tolerance(out));
            }
          }
}

TEST_CASE("residual, dropout and norm, forward and backward, agree with the CPU on every device") {
  struct Shape {
    int64_t rows, cols, gap;
  };
  std::vector<std::tuple<DType, float, NormKind>> cases;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const float rate : {0.0f, 0.3f})
      for (const NormKind kind : {NormKind::layer, NormKind::rms}) cases.emplace_back(dtype, rate, kind);
  for (const Shape& s : {Shape{1, 2, 0}, Shape{1, 8, 0}, Shape{3, 17, 5}, Shape{5, 32, 0}, Shape{2, 256, 8},
                         Shape{7, 33, 1}, Shape{8, 264, 0}, Shape{0, 16, 0}, Shape{2, 1500, 0},
                         Shape{9, 64, 64}, Shape{17, 40, 0}, Shape{70, 8, 0}})
    for (const auto& [dtype, rate, kind] : cases) {
      const bool centres = kind == NormKind::layer;
      CAPTURE(s.rows);
      CAPTURE(s.cols);
      CAPTURE(to_string(dtype));
      CAPTURE(rate);
      CAPTURE(int(kind));
      const Matrix x = around(3, random_matrix(s.rows, s.cols, 1)), y = random_bf16(s.rows, s.cols, 2),
                   gamma = around(1, random_matrix(1, s.cols, 3)), beta = random_matrix(1, s.cols, 4),
                   dnormed = random_bf16(s.rows, s.cols, 5), dnormed_f32 = random_matrix(s.rows, s.cols, 6),
                   dsum_in = random_matrix(s.rows, s.cols, 7);
      check_devices(
          [&](TestDevice& device) {
            const Placed x_in(device, DType::f32, x, s.gap), y_in(device, dtype, y, s.gap),
                g(device, DType::f32, gamma), b(device, DType::f32, beta),
                sum(device, DType::f32, s.rows, s.cols, s.gap), normed(device, dtype, s.rows, s.cols, s.gap),
                normed_f32(device, DType::f32, s.rows, s.cols, s.gap), mean(device, DType::f32, 1, s.rows),
                rstd(device, DType::f32, 1, s.rows);
            device.stream().residual_norm_forward({x_in.view(),
                                                   y_in.view(),
                                                   {rate, 9},
                                                   g.view(),
                                                   centres ? b.view() : View{},
                                                   sum.view(),
                                                   normed.view(),
                                                   normed_f32.view(),
                                                   centres ? mean.view() : View{},
                                                   rstd.view(),
                                                   kind});
            const Placed d(device, dtype, dnormed, s.gap), d_f32(device, DType::f32, dnormed_f32, s.gap),
                d_sum(device, DType::f32, dsum_in, s.gap), dy(device, dtype, s.rows, s.cols, s.gap),
                dgamma(device, DType::f32, 1, s.cols), dbeta(device, DType::f32, 1, s.cols);
            device.stream().residual_norm_backward({d.view(),
                                                    d_f32.view(),
                                                    d_sum.view(),
                                                    sum.view(),
                                                    g.view(),
                                                    centres ? mean.view() : View{},
                                                    rstd.view(),
                                                    {rate, 9},
                                                    d_sum.view(),
                                                    dy.view(),
                                                    dgamma.view(),
                                                    centres ? dbeta.view() : View{},
                                                    kind});
            return Results{sum.values(),        mean.values(),   rstd.values(),
                           normed_f32.values(), d_sum.values(),  dgamma.values(),
                           dbeta.values(),      normed.values(), dy.values()};
          },
          {kSameBits, 2e-6, 2e-5, 2e-5, 2e-5, 2e-5, 2e-5, 2e-5 + tolerance(dtype)});
    }
}

TEST_CASE("the residual alone, the norm alone, and x in place, on every device") {
  const Matrix x = random_matrix(4, 24, 1), y = random_matrix(4, 24, 2), gamma(1, 24, 1), beta(1, 24, 0);
  check_devices(
      [&](TestDevice& device) {
        const Placed in_place(device, DType::f32, x), y_in(device, DType::f32, y),
            g(device, DType::f32, gamma), b(device, DType::f32, beta), normed(device, DType::f32, 4, 24),
            dsum(device, DType::f32, x), dy(device, DType::f32, 4, 24);
        ResidualNorm residual;
        residual.x = in_place.view();
        residual.y = y_in.view();
        residual.sum = in_place.view();
        device.stream().residual_norm_forward(residual);
        ResidualNorm norm;
        norm.x = in_place.view();
        norm.gamma = g.view();
        norm.beta = b.view();
        norm.normed = normed.view();
        device.stream().residual_norm_forward(norm);
        ResidualNormGrad grad;
        grad.dsum_in = dsum.view();
        grad.dsum = dsum.view();
        grad.dy = dy.view();
        device.stream().residual_norm_backward(grad);
        return Results{in_place.values(), dsum.values(), dy.values(), normed.values()};
      },
      {kSameBits, kSameBits, kSameBits, 2e-5});
}
