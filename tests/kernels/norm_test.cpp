#include "kernels/reference/norm.hpp"

#include <doctest/doctest.h>

#include "kernels/dropout.hpp"
#include "tests/kernels/levels.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

struct Shape {
  int64_t rows, cols, gap;
};
constexpr Shape kShapes[] = {{1, 1, 0},  {1, 8, 0},   {3, 17, 5}, {5, 32, 0},   {2, 256, 3},
                             {7, 33, 1}, {4, 300, 0}, {0, 16, 0}, {2, 1500, 0}, {9, 64, 64}};

constexpr NormKind kKinds[] = {NormKind::layer, NormKind::rms};

// beta, mean and dbeta, which layer norm alone has: empty for RMS norm.
template <typename AnyMatrix>
auto if_layer(NormKind kind, AnyMatrix& m) {
  return kind == NormKind::layer ? m.view() : decltype(m.view()){};
}

Matrix around(float center, const Matrix& m) {
  Matrix shifted = m;
  for (float& v : shifted.values) v += center;
  return shifted;
}

struct ForwardResult {
  Matrix sum, normed, normed_f32, mean, rstd;
};

ForwardResult forward(NormKind kind, IsaLevel level, DType dtype, const Matrix& x, const Matrix& y,
                      const Matrix& gamma, const Matrix& beta, Dropout dropout, int64_t gap) {
  CpuStream stream(level);
  const Strided x_in(DType::f32, x, gap), y_in(dtype, y, gap);
  const Strided sum(DType::f32, x.rows, x.cols, gap), normed(dtype, x.rows, x.cols, gap),
      normed_f32(DType::f32, x.rows, x.cols, gap);
  ForwardResult result;
  result.mean = Matrix(1, x.rows);
  result.rstd = Matrix(1, x.rows);
  ResidualNorm args;
  args.x = x_in.view();
  args.y = y_in.view();
  args.dropout = dropout;
  args.gamma = gamma.view();
  args.beta = if_layer(kind, beta);
  args.sum = sum.view();
  args.normed = normed.view();
  args.normed_f32 = normed_f32.view();
  args.mean = if_layer(kind, result.mean);
  args.rstd = result.rstd.view();
  args.kind = kind;
  stream.residual_norm_forward(args);
  result.sum = sum.values();
  result.normed = normed.values();
  result.normed_f32 = normed_f32.values();
  return result;
}

struct BackwardResult {
  Matrix dsum, dy, dgamma, dbeta;
};

BackwardResult backward(NormKind kind, IsaLevel level, DType dtype, const ForwardResult& kept,
                        const Matrix& gamma, const Matrix& dnormed, const Matrix& dnormed_f32,
                        const Matrix& dsum_in, Dropout dropout, int64_t gap) {
  CpuStream stream(level);
  const Strided d(dtype, dnormed, gap), d_f32(DType::f32, dnormed_f32, gap), d_sum(DType::f32, dsum_in, gap),
      sum(DType::f32, kept.sum, gap), dy(dtype, dnormed.rows, dnormed.cols, gap);
  BackwardResult result;
  result.dgamma = Matrix(1, gamma.cols, 7);
  result.dbeta = Matrix(1, gamma.cols, kind == NormKind::layer ? 7 : 0);
  ResidualNormGrad args;
  args.dnormed = d.view();
  args.dnormed_f32 = d_f32.view();
  args.dsum_in = d_sum.view();
  args.sum = sum.view();
  args.gamma = gamma.view();
  args.mean = if_layer(kind, kept.mean);
  args.rstd = kept.rstd.view();
  args.dropout = dropout;
  args.dsum = d_sum.view();  // in place
  args.dy = dy.view();
  args.dgamma = result.dgamma.view();
  args.dbeta = if_layer(kind, result.dbeta);
  args.kind = kind;
  stream.residual_norm_backward(args);
  result.dsum = d_sum.values();
  result.dy = dy.values();
  return result;
}

std::vector<double> reference_norm(NormKind kind, std::span<const double> r, const Matrix& gamma,
                                   const Matrix& beta) {
  return kind == NormKind::layer ? reference::layer_norm(r, gamma.values, beta.values)
                                 : reference::rms_norm(r, gamma.values);
}

std::vector<double> reference_norm_backward(NormKind kind, std::span<const double> r, const Matrix& gamma,
                                            std::span<const double> g, std::span<double> dgamma,
                                            std::span<double> dbeta) {
  return kind == NormKind::layer ? reference::layer_norm_backward(r, gamma.values, g, dgamma, dbeta)
                                 : reference::rms_norm_backward(r, gamma.values, g, dgamma);
}

// f(kind, shape, dtype) for all of them.
template <typename F>
void for_cases(F&& f) {
  for (const NormKind kind : kKinds)
    for (const Shape& s : kShapes)
      for (const DType dtype : {DType::f32, DType::bf16}) {
        CAPTURE(int(kind));
        CAPTURE(s.rows);
        CAPTURE(s.cols);
        f(kind, s, dtype);
      }
}

}  // namespace

TEST_CASE("residual, dropout and norm follow the reference at odd shapes, types and levels") {
  for_cases([](NormKind kind, const Shape& s, DType dtype) {
    const Matrix x = around(3, random_matrix(s.rows, s.cols, 1)), y = random_bf16(s.rows, s.cols, 2);
    const Matrix gamma = around(1, random_matrix(1, s.cols, 3)), beta = random_matrix(1, s.cols, 4);
    const Dropout dropout{0.3f, 99};
    Matrix sum(s.rows, s.cols), normed(s.rows, s.cols);
    for (int64_t row = 0; row < s.rows; ++row) {
      std::vector<double> r;
      for (int64_t col = 0; col < s.cols; ++col)
        r.push_back(double(x.at(row, col)) +
                    double(y.at(row, col)) * double(dropout_factor(dropout, uint64_t(row * s.cols + col))));
      const std::vector<double> out = reference_norm(kind, r, gamma, beta);
      for (int64_t col = 0; col < s.cols; ++col) {
        sum.at(row, col) = float(r[size_t(col)]);
        normed.at(row, col) = float(out[size_t(col)]);
      }
    }
    std::vector<ForwardResult> results;
    for (IsaLevel level : machine_levels()) {
      results.push_back(forward(kind, level, dtype, x, y, gamma, beta, dropout, s.gap));
      CHECK(distance(results.back().sum, sum) < 1e-6);
      CHECK(distance(results.back().normed_f32, normed) < 2e-6 + 2e-7 * double(s.cols));
      CHECK(distance(results.back().normed, normed) < tolerance(dtype) + 2e-7 * double(s.cols));
      CHECK(results.back().normed_f32.values == results.front().normed_f32.values);
      CHECK(results.back().mean.values == results.front().mean.values);
      CHECK(results.back().rstd.values == results.front().rstd.values);
    }
  });
}

TEST_CASE("the backward pass of residual and norm follows the reference, with all its gradients at once") {
  for_cases([](NormKind kind, const Shape& s, DType dtype) {
    if (s.cols < 2) return;  // the variance of one channel is zero and its gradient all epsilon
    const Matrix x = around(3, random_matrix(s.rows, s.cols, 1)), y = random_bf16(s.rows, s.cols, 2);
    const Matrix gamma = around(1, random_matrix(1, s.cols, 3)), beta = random_matrix(1, s.cols, 4);
    const Matrix dnormed = random_bf16(s.rows, s.cols, 5), dnormed_f32 = random_matrix(s.rows, s.cols, 6),
                 dsum_in = random_matrix(s.rows, s.cols, 7);
    const Dropout dropout{0.25f, 5};
    const ForwardResult kept = forward(kind, best_isa_level(), dtype, x, y, gamma, beta, dropout, s.gap);

    Matrix dsum(s.rows, s.cols), dy(s.rows, s.cols), dgamma(1, s.cols), dbeta(1, s.cols);
    std::vector<double> gamma_sum(size_t(s.cols)), beta_sum(size_t(s.cols));
    for (int64_t row = 0; row < s.rows; ++row) {
      std::vector<double> r, g;
      for (int64_t col = 0; col < s.cols; ++col) {
        r.push_back(double(kept.sum.at(row, col)));
        g.push_back(double(dnormed.at(row, col)) + double(dnormed_f32.at(row, col)));
      }
      const std::vector<double> dr = reference_norm_backward(kind, r, gamma, g, gamma_sum, beta_sum);
      for (int64_t col = 0; col < s.cols; ++col) {
        dsum.at(row, col) = float(dr[size_t(col)] + double(dsum_in.at(row, col)));
        dy.at(row, col) = dsum.at(row, col) * dropout_factor(dropout, uint64_t(row * s.cols + col));
      }
    }
    for (size_t col = 0; col < gamma_sum.size(); ++col) {
      dgamma.values[col] = float(gamma_sum[col]);
      dbeta.values[col] = float(beta_sum[col]);
    }
    std::vector<BackwardResult> results;
    for (IsaLevel level : machine_levels()) {
      results.push_back(
          backward(kind, level, dtype, kept, gamma, dnormed, dnormed_f32, dsum_in, dropout, s.gap));
      CHECK(distance(results.back().dsum, dsum) < 2e-5);
      CHECK(distance(results.back().dy, dy) < 2e-5 + (dtype == DType::bf16 ? 8e-3 : 0));
      CHECK(distance(results.back().dgamma, dgamma) < 2e-5);
      CHECK(distance(results.back().dbeta, dbeta) < 2e-5);
      CHECK(results.back().dsum.values == results.front().dsum.values);
      CHECK(results.back().dgamma.values == results.front().dgamma.values);
    }
  });
}

TEST_CASE("the gradients of residual and norm pass the numeric check, pre-norm and post-norm") {
  const Dropout dropout{0.2f, 3};
  NormKind kind = NormKind::layer;
  const auto run = [&](const std::vector<Matrix>& in) {
    return forward(kind, best_isa_level(), DType::f32, in[0], in[1], in[2], in[3], dropout, 0);
  };
  const std::vector<Matrix> inputs{random_matrix(6, 20, 1), random_matrix(6, 20, 2),
                                   around(1, random_matrix(1, 20, 3)), random_matrix(1, 20, 4)};
  const Matrix none(6, 20);
  for (const bool post_norm : {false, true})
    for (const NormKind of : kKinds) {
      kind = of;
      const auto value = [&](const std::vector<Matrix>& in) {
        return post_norm ? run(in).normed_f32 : run(in).normed;
      };
      const auto gradient = [&](const std::vector<Matrix>& in, const Matrix& dout, std::vector<Matrix>& din) {
        const BackwardResult b = backward(kind, best_isa_level(), DType::f32, run(in), in[2],
                                          post_norm ? none : dout, post_norm ? dout : none, none, dropout, 0);
        din = {b.dsum, b.dy, b.dgamma, b.dbeta};
      };
      const GradReport report = check_gradients(inputs, value, gradient);
      INFO(report.where);
      CHECK(report.worst < 1e-3);
    }
}

TEST_CASE("the residual alone, the norm alone, and x in place") {
  CpuStream stream(best_isa_level());
  Matrix x = random_matrix(4, 24, 1), y = random_matrix(4, 24, 2);
  const Matrix before = x;
  ResidualNorm residual;  // no norm, no dropout, in place
  residual.x = x.view();
  residual.y = y.view();
  residual.sum = x.view();
  stream.residual_norm_forward(residual);
  for (size_t i = 0; i < x.values.size(); ++i) CHECK(x.values[i] == before.values[i] + y.values[i]);

  const Matrix gamma(1, 24, 1), beta(1, 24, 0);
  Matrix normed(4, 24), mean(1, 4), rstd(1, 4);
  ResidualNorm norm;  // no y, no sum
  norm.x = x.view();
  norm.gamma = gamma.view();
  norm.beta = beta.view();
  norm.normed = normed.view();
  norm.mean = mean.view();
  norm.rstd = rstd.view();
  stream.residual_norm_forward(norm);
  for (int64_t row = 0; row < 4; ++row) {
    double sum = 0, squares = 0;
    for (int64_t col = 0; col < 24; ++col) {
      sum += double(normed.at(row, col));
      squares += double(normed.at(row, col)) * double(normed.at(row, col));
    }
    CHECK(std::abs(sum) < 1e-5);
    CHECK(std::abs(squares / 24 - 1) < 1e-3);
  }

  Matrix dsum = random_matrix(4, 24, 5), dy(4, 24);
  const Matrix passed = dsum;
  ResidualNormGrad grad;  // of the residual alone
  grad.dsum_in = dsum.view();
  grad.dsum = dsum.view();
  grad.dy = dy.view();
  stream.residual_norm_backward(grad);
  CHECK(dsum.values == passed.values);
  CHECK(dy.values == passed.values);
}

TEST_CASE("rows give the same bits in one call and in several") {
  constexpr int64_t kRows = 13, kCols = 77;
  for (const NormKind kind : kKinds) {
    const Matrix x = random_matrix(kRows, kCols, 1), gamma = around(1, random_matrix(1, kCols, 2)),
                 beta = random_matrix(1, kCols, 3);
    Matrix whole(kRows, kCols), parts(kRows, kCols);
    CpuStream stream(best_isa_level());
    const auto run = [&](const Matrix& in, Matrix& out, int64_t begin, int64_t end) {
      ResidualNorm args;
      args.x = in.view().row_range(begin, end - begin);
      args.gamma = gamma.view();
      args.beta = if_layer(kind, beta);
      args.normed = out.view().row_range(begin, end - begin);
      args.kind = kind;
      stream.residual_norm_forward(args);
    };
    run(x, whole, 0, kRows);
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 1}, {1, 6}, {6, 13}})
      run(x, parts, begin, end);
    CHECK(whole.values == parts.values);
  }
}

TEST_CASE("shapes that do not fit together are refused") {
  CpuStream stream(best_isa_level());
  Matrix x(2, 8), y(2, 9), sum(2, 8), gamma(1, 8);
  ResidualNorm args;
  args.x = x.view();
  args.y = y.view();
  args.sum = sum.view();
  CHECK_THROWS_AS(stream.residual_norm_forward(args), CheckFailure);
  args.y = x.view();
  args.sum = {};
  CHECK_THROWS_AS(stream.residual_norm_forward(args), CheckFailure);
  args.sum = sum.view();
  args.gamma = gamma.view();
  CHECK_THROWS_AS(stream.residual_norm_forward(args), CheckFailure);
  args.kind = NormKind::rms;  // has no beta
  args.beta = gamma.view();
  CHECK_THROWS_AS(stream.residual_norm_forward(args), CheckFailure);
  args.beta = {};
  args.gamma = {};
  args.dropout.rate = 1;
  CHECK_THROWS_AS(stream.residual_norm_forward(args), CheckFailure);
}
