// Checks an operation's backward pass against its forward pass by numbers alone. The loss is a fixed random
// projection of the output, summed in double; its derivative along single elements of each input and along
// one random direction of it comes from five points (error O(h^4)) and is compared with what the backward
// pass says.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "kernels/base/random.hpp"
#include "kernels/tensor.hpp"

namespace troupe::testing {

// A host matrix of f32 (rows, cols), contiguous.
struct Matrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<float> values;

  Matrix() = default;
  Matrix(int64_t row_count, int64_t col_count, float value = 0)
      : rows(row_count), cols(col_count), values(size_t(row_count * col_count), value) {}
  kernels::View view() { return kernels::view_of(values.data(), rows, cols); }
  kernels::ConstView view() const { return kernels::view_of(values.data(), rows, cols); }
  float& at(int64_t row, int64_t col) { return values[size_t(row * cols + col)]; }
  float at(int64_t row, int64_t col) const { return values[size_t(row * cols + col)]; }
};

// Uniform in [-scale, scale), a pure function of the seed.
inline Matrix random_matrix(int64_t rows, int64_t cols, uint64_t seed, float scale = 1) {
  Matrix m(rows, cols);
  const Philox philox = philox_from(mix64(seed, 0x6d617472));
  for (size_t i = 0; i < m.values.size(); ++i)
    m.values[i] = scale * (float(philox(i)[0] >> 8) * 0x1p-23f - 1.0f);
  return m;
}

struct GradCheckOptions {
  double step = 1.0 / 32;  // h; a power of two keeps x + h exact for most x
  int elements = 12;       // of each input, chosen at random
  uint64_t seed = 1;
};

// `worst` is the largest |analytic - numeric| relative to the root mean square of that input's gradient or
// the element itself, whichever is larger (for the random direction: to the norm); `where` says in words
// which derivative that was.
struct GradReport {
  double worst = 0;
  std::string where;
};

// forward: from the inputs to the output. backward: from the inputs and the output's gradient to one gradient
// an input, which arrive zeroed; leave `rows` 0 in an input's gradient to say that the input is not
// differentiated.
using Forward = std::function<Matrix(const std::vector<Matrix>& inputs)>;
using Backward = std::function<void(const std::vector<Matrix>& inputs, const Matrix& doutput,
                                    std::vector<Matrix>& dinputs)>;

namespace detail {

inline double rms(const std::vector<float>& values) {
  double squares = 0;
  for (float v : values) squares += double(v) * double(v);
  return values.empty() ? 0 : std::sqrt(squares / double(values.size()));
}

inline double projected_loss(const Forward& forward, const std::vector<Matrix>& inputs,
                             const Matrix& projection) {
  const Matrix out = forward(inputs);
  double loss = 0;
  for (size_t i = 0; i < out.values.size(); ++i) loss += double(out.values[i]) * double(projection.values[i]);
  return loss;
}

// The derivative of the loss along `direction` of input `which`.
inline double numeric_derivative(const Forward& forward, std::vector<Matrix> inputs, size_t which,
                                 const std::vector<float>& direction, const Matrix& projection, double step) {
  const std::vector<float> origin = inputs[which].values;
  const auto loss_at = [&](double distance) {
    for (size_t i = 0; i < origin.size(); ++i)
      inputs[which].values[i] = float(double(origin[i]) + distance * double(direction[i]));
    return projected_loss(forward, inputs, projection);
  };
  const double near = loss_at(step) - loss_at(-step);
  const double far = loss_at(2 * step) - loss_at(-2 * step);
  return (8 * near - far) / (12 * step);
}

}  // namespace detail

inline GradReport check_gradients(const std::vector<Matrix>& inputs, const Forward& forward,
                                  const Backward& backward, const GradCheckOptions& options = {}) {
  const Matrix out = forward(inputs);
  const Matrix projection = random_matrix(out.rows, out.cols, mix64(options.seed, 99));
  std::vector<Matrix> gradients;
  for (const Matrix& input : inputs) gradients.emplace_back(input.rows, input.cols);
  backward(inputs, projection, gradients);
  double rms_max = 0;
  for (const Matrix& gradient : gradients) rms_max = std::max(rms_max, detail::rms(gradient.values));

  GradReport report;
  const auto compare = [&](double analytic, double numeric, double scale, const std::string& where) {
    const double error = std::abs(analytic - numeric) / std::max(scale, 1e-30);
    if (error <= report.worst) return;
    report.worst = std::isnan(error) ? HUGE_VAL : error;
    report.where = fmt::format("{}: backward says {:.6g}, the forward pass {:.6g}", where, analytic, numeric);
  };
  for (size_t which = 0; which < inputs.size(); ++which) {
    const std::vector<float>& gradient = gradients[which].values;
    if (gradients[which].rows == 0 || gradient.empty()) continue;
    const double rms = std::max(detail::rms(gradient), 0.01 * rms_max);
    const auto numeric = [&](const std::vector<float>& direction, double step) {
      return detail::numeric_derivative(forward, inputs, which, direction, projection, step);
    };
    std::vector<float> direction(gradient.size(), 0.0f);
    const Philox philox = philox_from(mix64(options.seed, which));
    for (int e = 0; e < options.elements; ++e) {
      const size_t i = philox(uint64_t(e))[0] % gradient.size();
      direction[i] = 1;
      compare(double(gradient[i]), numeric(direction, options.step),
              std::max(rms, std::abs(double(gradient[i]))), fmt::format("input {} element {}", which, i));
      direction[i] = 0;
    }
    const Matrix along = random_matrix(1, int64_t(gradient.size()), mix64(options.seed, 1000 + which));
    double analytic = 0;
    for (size_t i = 0; i < gradient.size(); ++i) analytic += double(gradient[i]) * double(along.values[i]);
    compare(analytic, numeric(along.values, options.step / 8), rms * std::sqrt(double(gradient.size())),
            fmt::format("input {} along a random direction", which));
  }
  return report;
}

}  // namespace troupe::testing
