#include <doctest/doctest.h>

#include "tests/kernels/devices.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

struct Shape {
  int64_t rows, length, heads, head_size, gap;
};
constexpr Shape kShapes[] = {{1, 1, 1, 2, 0},  {7, 3, 2, 6, 1},   {6, 6, 3, 34, 0}, {5, 2, 1, 16, 8},
                             {9, 4, 4, 64, 0}, {12, 5, 2, 48, 0}, {0, 4, 2, 8, 0},  {33, 40, 2, 32, 16},
                             {3, 2, 5, 10, 3}, {70, 7, 3, 80, 64}};

// Cosines, then sines, of any angles.
Matrix turns_of(const Shape& s) {
  Matrix turns(s.length, s.head_size);
  const Matrix angles = random_matrix(s.length, s.head_size / 2, 9, 3);
  for (int64_t t = 0; t < s.length; ++t)
    for (int64_t i = 0; i < s.head_size / 2; ++i) {
      turns.at(t, i) = std::cos(angles.at(t, i));
      turns.at(t, s.head_size / 2 + i) = std::sin(angles.at(t, i));
    }
  return turns;
}

Matrix rotated(IsaLevel level, DType dtype, const Matrix& x, const Matrix& turns, bool inverse,
               int64_t gap = 0) {
  CpuStream stream(level);
  const Strided in_place(dtype, x, gap);
  stream.rotate(in_place.view(), turns.view(), inverse);
  return in_place.values();
}

}  // namespace

TEST_CASE("rotations follow the definition at odd shapes, types and levels, and undo one another") {
  for (const Shape& s : kShapes)
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const bool inverse : {false, true}) {
        CAPTURE(s.rows);
        CAPTURE(s.head_size);
        const Matrix x = random_bf16(s.rows, s.heads * s.head_size, 1), turns = turns_of(s);
        const int64_t half = s.head_size / 2;
        Matrix expected = x;
        for (int64_t row = 0; row < s.rows; ++row)
          for (int64_t head = 0; head < s.heads; ++head)
            for (int64_t i = 0; i < half; ++i) {
              const int64_t first = head * s.head_size + i, position = row % s.length;
              const double a = double(x.at(row, first)), b = double(x.at(row, first + half));
              const double cosine = double(turns.at(position, i));
              const double sine = double(turns.at(position, half + i)) * (inverse ? -1 : 1);
              expected.at(row, first) = float(a * cosine - b * sine);
              expected.at(row, first + half) = float(a * sine + b * cosine);
            }
        const Matrix first = rotated(IsaLevel::v2, dtype, x, turns, inverse, s.gap);
        for (const IsaLevel level : machine_levels()) {
          const Matrix result = rotated(level, dtype, x, turns, inverse, s.gap);
          CHECK(distance(result, expected) < tolerance(dtype));
          CHECK(same_bits(result, first));
        }
        const Matrix back = rotated(best_isa_level(), dtype, first, turns, !inverse, s.gap);
        CHECK(distance(back, x) < 2 * tolerance(dtype));
      }
}

TEST_CASE("the product of a turned query and a turned key depends on how far apart they are") {
  constexpr int64_t kHead = 16, kLength = 12;
  Matrix turns(kLength, kHead), query(kLength, kHead), key(kLength, kHead);
  const Matrix q = random_matrix(1, kHead, 1), k = random_matrix(1, kHead, 2);
  for (int64_t t = 0; t < kLength; ++t)
    for (int64_t i = 0; i < kHead / 2; ++i) {
      const double angle = double(t) * std::pow(10000.0, -2.0 * double(i) / kHead);
      turns.at(t, i) = float(std::cos(angle));
      turns.at(t, kHead / 2 + i) = float(std::sin(angle));
    }
  for (int64_t t = 0; t < kLength; ++t)
    for (int64_t c = 0; c < kHead; ++c) query.at(t, c) = q.at(0, c), key.at(t, c) = k.at(0, c);
  query = rotated(best_isa_level(), DType::f32, query, turns, false);
  key = rotated(best_isa_level(), DType::f32, key, turns, false);
  const auto product = [&](int64_t m, int64_t n) {
    double sum = 0;
    for (int64_t c = 0; c < kHead; ++c) sum += double(query.at(m, c)) * double(key.at(n, c));
    return sum;
  };
  for (int64_t apart = 0; apart < kLength; ++apart)
    for (int64_t n = 0; n + apart < kLength; ++n)
      CHECK(product(n + apart, n) == doctest::Approx(product(apart, 0)).epsilon(1e-5));
}

TEST_CASE("the gradient of a rotation passes the numeric check") {
  const Shape s{6, 4, 2, 10, 0};
  const Matrix turns = turns_of(s);
  const auto value = [&](const std::vector<Matrix>& in) {
    return rotated(best_isa_level(), DType::f32, in[0], turns, false);
  };
  const auto gradient = [&](const std::vector<Matrix>&, const Matrix& dout, std::vector<Matrix>& din) {
    din[0] = rotated(best_isa_level(), DType::f32, dout, turns, true);
  };
  const GradReport report =
      check_gradients({random_matrix(s.rows, s.heads * s.head_size, 1)}, value, gradient);
  INFO(report.where);
  CHECK(report.worst < 1e-3);
}

TEST_CASE("rotations give the CPU's bits on every device") {
  for (const Shape& s : kShapes)
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const bool inverse : {false, true}) {
        CAPTURE(s.rows);
        CAPTURE(s.head_size);
        CAPTURE(to_string(dtype));
        const Matrix x = random_matrix(s.rows, s.heads * s.head_size, 1), angles = turns_of(s);
        check_devices(
            [&](TestDevice& device) {
              const Placed in_place(device, dtype, x, s.gap), turns(device, DType::f32, angles);
              device.stream().rotate(in_place.view(), turns.view(), inverse);
              return Results{in_place.values()};
            },
            {kSameBits});
      }
}

TEST_CASE("heads that do not fit a rotation are refused") {
  CpuStream stream(best_isa_level());
  Matrix x(2, 12), odd(2, 3), wide(2, 8), none(0, 4);
  for (const Matrix& turns : {odd, wide, none})
    CHECK_THROWS_AS(stream.rotate(x.view(), turns.view(), false), CheckFailure);
}
