// The plain form of activation.cpp, one element in double. For tests, and to read.
#pragma once

#include <cmath>

#include "kernels/backend.hpp"

namespace troupe::kernels::reference {

inline double activation(Activation kind, double x) {
  if (kind == Activation::relu) return x > 0 ? x : 0;
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

inline double activation_slope(Activation kind, double x) {
  if (kind == Activation::relu) return x > 0 ? 1 : 0;
  const double root = std::sqrt(2 / 3.14159265358979323846);
  const double t = std::tanh(root * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x);
}

}  // namespace troupe::kernels::reference
