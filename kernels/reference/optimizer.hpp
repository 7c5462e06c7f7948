// The plain form of optimizer.cpp, one element in double. For tests, and to read.
#pragma once

#include <cmath>

#include "kernels/backend.hpp"

namespace troupe::kernels::reference {

struct AdamWState {
  double weight = 0, moment1 = 0, moment2 = 0;
};

// `gradient` is already scaled.
inline AdamWState adamw(const AdamW& a, double gradient, AdamWState s) {
  s.moment1 = double(a.beta1) * s.moment1 + (1 - double(a.beta1)) * gradient;
  s.moment2 = double(a.beta2) * s.moment2 + (1 - double(a.beta2)) * gradient * gradient;
  const double first = s.moment1 / double(a.bias_correction1),
               second = s.moment2 / double(a.bias_correction2);
  s.weight -= double(a.learning_rate) * double(a.weight_decay) * s.weight;
  s.weight -= double(a.learning_rate) * first / (std::sqrt(second) + double(a.epsilon));
  return s;
}

}  // namespace troupe::kernels::reference
