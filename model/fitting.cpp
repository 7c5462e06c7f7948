#include "model/fitting.hpp"

#include "kernels/base/error.hpp"

namespace troupe::model {

int64_t tokens_that_fit(const Model& model, size_t bytes, int64_t tokens_max) {
  int64_t fitting = 0, beyond = tokens_max + 1;
  while (beyond - fitting > 1) {
    const int64_t middle = fitting + (beyond - fitting) / 2;
    const bool fits = model.arena_bytes(middle, middle, true) <= bytes;  // a sentence has a token or more
    (fits ? fitting : beyond) = middle;
  }
  return fitting;
}

int64_t parameters_that_fit(size_t bytes, int64_t parameters, size_t state_bytes) {
  TROUPE_CHECK(parameters > 0 && state_bytes > 0, "{} parameters in {} bytes", parameters, state_bytes);
  return int64_t(double(bytes) / double(state_bytes) * double(parameters));
}

}  // namespace troupe::model
