#include "tests/support/grad_check.hpp"

#include <doctest/doctest.h>

using namespace troupe::testing;

namespace {

Matrix times_square(const std::vector<Matrix>& in) {  // a * b^2
  Matrix out(in[0].rows, in[0].cols);
  for (size_t i = 0; i < out.values.size(); ++i)
    out.values[i] = in[0].values[i] * in[1].values[i] * in[1].values[i];
  return out;
}

void times_square_backward(const std::vector<Matrix>& in, const Matrix& dout, std::vector<Matrix>& din) {
  for (size_t i = 0; i < dout.values.size(); ++i) {
    din[0].values[i] = dout.values[i] * in[1].values[i] * in[1].values[i];
    din[1].values[i] = dout.values[i] * in[0].values[i] * 2 * in[1].values[i];
  }
}

}  // namespace

TEST_CASE("the gradient check accepts a right backward pass and names the input of a wrong one") {
  const std::vector<Matrix> inputs{random_matrix(5, 7, 1), random_matrix(5, 7, 2)};
  const GradReport right = check_gradients(inputs, times_square, times_square_backward);
  INFO(right.where);
  CHECK(right.worst < 1e-4);

  const auto wrong = [](const std::vector<Matrix>& in, const Matrix& dout, std::vector<Matrix>& din) {
    times_square_backward(in, dout, din);
    for (float& g : din[1].values) g *= 1.01f;
  };
  const GradReport found = check_gradients(inputs, times_square, wrong);
  CHECK(found.worst > 0.005);
  CHECK(found.where.find("input 1") == 0);
}

TEST_CASE("the gradient check takes NaN for an error and skips inputs without a gradient") {
  const std::vector<Matrix> inputs{random_matrix(3, 3, 1), random_matrix(3, 3, 2)};
  const auto poisoned = [](const std::vector<Matrix>& in, const Matrix& dout, std::vector<Matrix>& din) {
    times_square_backward(in, dout, din);
    for (float& g : din[0].values) g = NAN;
  };
  CHECK(check_gradients(inputs, times_square, poisoned).worst == HUGE_VAL);
  const auto first_only = [](const std::vector<Matrix>& in, const Matrix& dout, std::vector<Matrix>& din) {
    times_square_backward(in, dout, din);
    din[1] = Matrix();
  };
  CHECK(check_gradients(inputs, times_square, first_only).worst < 1e-4);
}
