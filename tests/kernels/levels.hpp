// What the tests of operations share: the instruction-set levels of this machine, matrices in a compute type
// with padding between their rows, and a comparison that says how far two matrices are apart.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/stream.hpp"
#include "tests/support/grad_check.hpp"

namespace troupe::testing {

inline std::vector<kernels::IsaLevel> machine_levels() {
  std::vector<kernels::IsaLevel> levels;
  for (const auto level : {kernels::IsaLevel::v2, kernels::IsaLevel::v3, kernels::IsaLevel::v4})
    if (level <= kernels::best_isa_level()) levels.push_back(level);
  return levels;
}

inline float round_to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
  std::memcpy(&x, &bits, 4);
  return x;
}

// A matrix of f32 or bf16 whose rows lie `gap` elements apart, as an operation sees its operands.
class Strided {
 public:
  Strided(kernels::DType dtype, int64_t rows, int64_t cols, int64_t gap = 0)
      : bytes_(size_t(rows * (cols + gap) + gap + 1) * 4, char(0x55)),
        view_{bytes_.data(), dtype, rows, cols, cols + gap} {}
  Strided(kernels::DType dtype, const Matrix& values, int64_t gap = 0)
      : Strided(dtype, values.rows, values.cols, gap) {
    for (int64_t r = 0; r < values.rows; ++r)
      for (int64_t c = 0; c < values.cols; ++c) set(r, c, values.at(r, c));
  }
  Strided(const Strided&) = delete;
  kernels::View view() const { return view_; }
  Matrix values() const {
    Matrix m(view_.rows, view_.cols);
    for (int64_t r = 0; r < m.rows; ++r)
      for (int64_t c = 0; c < m.cols; ++c) m.at(r, c) = get(r, c);
    return m;
  }

 private:
  void set(int64_t r, int64_t c, float x) {
    const size_t at = size_t(r * view_.stride + c);
    if (view_.dtype == kernels::DType::f32) {
      std::memcpy(bytes_.data() + at * 4, &x, 4);
    } else {
      const float rounded = round_to_bf16(x);
      std::memcpy(bytes_.data() + at * 2, reinterpret_cast<const char*>(&rounded) + 2, 2);
    }
  }
  float get(int64_t r, int64_t c) const {
    const size_t at = size_t(r * view_.stride + c);
    float x = 0;
    if (view_.dtype == kernels::DType::f32)
      std::memcpy(&x, bytes_.data() + at * 4, 4);
    else
      std::memcpy(reinterpret_cast<char*>(&x) + 2, bytes_.data() + at * 2, 2);
    return x;
  }

  std::vector<char> bytes_;
  kernels::View view_;
};

// Values that a bf16 holds exactly, so that both compute types have the same inputs.
inline Matrix random_bf16(int64_t rows, int64_t cols, uint64_t seed, float scale = 1) {
  Matrix m = random_matrix(rows, cols, seed, scale);
  for (float& v : m.values) v = round_to_bf16(v);
  return m;
}

// The largest difference, relative to the largest magnitude of `expected` (at least 1e-3). NaN counts as
// infinite.
inline double distance(const Matrix& actual, const Matrix& expected) {
  double worst = 0, scale = 1e-3;
  for (float v : expected.values) scale = std::max(scale, std::abs(double(v)));
  for (size_t i = 0; i < expected.values.size(); ++i) {
    const double d = std::abs(double(actual.values[i]) - double(expected.values[i]));
    worst = std::max(worst, std::isnan(d) ? HUGE_VAL : d / scale);
  }
  return actual.values.size() == expected.values.size() ? worst : HUGE_VAL;
}

inline double tolerance(kernels::DType dtype) {
  return dtype == kernels::DType::f32 ? 5e-6 : 8e-3;
}

}  // namespace troupe::testing
