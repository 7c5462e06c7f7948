#include <cmath>

#include <doctest/doctest.h>

#include "tests/kernels/packed.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

// A row as integers and their scale, the plain way.
struct Rounded {
  std::vector<int> integers;
  float scale = 0;
};
Rounded round_row(const Matrix& m, int64_t row) {
  float most = 0;
  for (int64_t c = 0; c < m.cols; ++c) most = std::max(most, std::abs(m.at(row, c)));
  Rounded rounded{{}, most / 127.0f};
  const float factor = most > 0 ? 127.0f / most : 0;
  for (int64_t c = 0; c < m.cols; ++c) rounded.integers.push_back(int(std::nearbyint(m.at(row, c) * factor)));
  return rounded;
}

Matrix plain_product(const Matrix& x, const Matrix& w, const Matrix& bias) {
  Matrix y(x.rows, w.rows);
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t n = 0; n < w.rows; ++n) {
      const Rounded a = round_row(x, r), b = round_row(w, n);
      int64_t sum = 0;
      for (size_t k = 0; k < a.integers.size(); ++k) sum += a.integers[k] * b.integers[k];
      y.at(r, n) = float(sum) * (b.scale * a.scale) + bias.at(0, n);
    }
  return y;
}

}  // namespace

TEST_CASE("8-bit linear gives the bits of plain loops over integers, at every level, type and odd shape") {
  for (const IsaLevel level : machine_levels())
    for (const LinearShape& s : kLinearShapes) {
      CAPTURE(to_string(level));
      CAPTURE(s.M);
      CAPTURE(s.N);
      CAPTURE(s.K);
      CpuStream stream(level);
      const Matrix x = random_bf16(s.M, s.K, 1, 3), w = random_matrix(s.N, s.K, 2),
                   bias = random_matrix(1, s.N, 3);
      const Packed packed(stream, w, DType::i8);
      const Matrix expected = plain_product(x, w, bias);
      for (const DType in : {DType::f32, DType::bf16})
        for (const DType out : {in, DType::f32}) {
          const Strided x_in(in, x, s.gap), y_out(out, s.M, s.N, s.gap);
          stream.linear_forward(x_in.view(), packed.weight, bias.view(), y_out.view());
          Matrix rounded = expected;
          if (out == DType::bf16)
            for (float& v : rounded.values) v = round_to_bf16(v);
          CHECK(y_out.values().values == rounded.values);
        }
    }
}

TEST_CASE("8-bit linear is near the product of what it rounds") {
  CpuStream stream(best_isa_level());
  const Matrix x = random_matrix(20, 256, 1), w = random_matrix(64, 256, 2);
  const Packed packed(stream, w, DType::i8);
  Matrix y(20, 64), expected(20, 64);
  stream.linear_forward(x.view(), packed.weight, {}, y.view());
  for (int64_t r = 0; r < 20; ++r)
    for (int64_t n = 0; n < 64; ++n)
      for (int64_t k = 0; k < 256; ++k) expected.at(r, n) += x.at(r, k) * w.at(n, k);
  CHECK(distance(y, expected) < 0.02);
}

TEST_CASE("a row of an 8-bit product does not depend on the rows beside it") {
  for (const IsaLevel level : machine_levels()) {
    CpuStream stream(level);
    const Matrix x = random_matrix(41, 100, 1), w = random_matrix(70, 100, 2);
    const Packed packed(stream, w, DType::i8);
    Matrix together(41, 70);
    stream.linear_forward(x.view(), packed.weight, {}, together.view());
    for (const int64_t rows : {1, 3, 5, 12, 13, 29})
      for (int64_t first = 0; first + rows <= 41; first += rows) {
        Matrix some(rows, 70);
        stream.linear_forward(x.view().row_range(first, rows), packed.weight, {}, some.view());
        CHECK(std::equal(some.values.begin(), some.values.end(), together.values.begin() + first * 70));
      }
  }
}

TEST_CASE("rows and channels of zeros give the bias, and what is not finite stays so") {
  for (const IsaLevel level : machine_levels()) {
    CpuStream stream(level);
    Matrix x = random_matrix(4, 40, 1), w = random_matrix(20, 40, 2);
    const Matrix bias = random_matrix(1, 20, 3);
    for (int64_t k = 0; k < 40; ++k) x.at(0, k) = w.at(7, k) = 0;
    x.at(1, 5) = NAN;
    x.at(2, 33) = INFINITY;
    const Packed packed(stream, w, DType::i8);
    Matrix y(4, 20);
    stream.linear_forward(x.view(), packed.weight, bias.view(), y.view());
    for (int64_t n = 0; n < 20; ++n) {
      CHECK(y.at(0, n) == bias.at(0, n));
      CHECK_FALSE(std::isfinite(y.at(1, n)));
      CHECK_FALSE(std::isfinite(y.at(2, n)));
    }
    CHECK(y.at(3, 7) == bias.at(0, 7));
  }
}

TEST_CASE("an 8-bit weight has no backward pass, and shapes must match") {
  CpuStream stream(best_isa_level());
  const Matrix w = random_matrix(4, 6, 2), x = random_matrix(3, 5, 1);
  const Packed packed(stream, w, DType::i8);
  Matrix y(3, 4), dx(3, 6);
  CHECK_THROWS_AS(stream.linear_forward(x.view(), packed.weight, {}, y.view()), CheckFailure);
  CHECK_THROWS_AS(stream.linear_backward_input(y.view(), packed.weight, dx.view(), false), CheckFailure);
}

TEST_CASE("rows too long for 8-bit products are refused before they are packed") {
  CpuStream stream(best_isa_level());
  CHECK_NOTHROW(Packed(stream, random_matrix(1, 65'536, 1), DType::i8));
  CHECK_THROWS_WITH_AS(Packed(stream, random_matrix(1, 65'537, 1), DType::i8),
                       doctest::Contains("at most 65536"), Error);
}
