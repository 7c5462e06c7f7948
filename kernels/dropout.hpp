// Which elements dropout keeps, as a pure function of (key, element index); the definition that every
// backend's loops follow. Element e draws word (e / 16) % 4 of Philox(key) at counter (e / 64) * 16 + e % 16,
// so that sixteen consecutive elements are sixteen consecutive counters. Kept when the word is at least rate
// * 2^32.
#pragma once

#include <cstdint>

#include "kernels/backend.hpp"
#include "kernels/base/random.hpp"

namespace troupe::kernels {

constexpr uint32_t dropout_word(uint64_t key, uint64_t index) {
  return philox_from(key)((index >> 6 << 4) | (index & 15))[(index >> 4) & 3];
}
constexpr uint32_t dropout_threshold(float rate) {
  return uint32_t(double(rate) * 4294967296.0);
}  // rate < 1

// 0, or 1 / (1 - rate): what the element is multiplied by.
constexpr float dropout_factor(const Dropout& dropout, uint64_t index) {
  if (dropout.rate <= 0) return 1.0f;
  return dropout_word(dropout.key, index) >= dropout_threshold(dropout.rate) ? 1.0f / (1.0f - dropout.rate)
                                                                             : 0.0f;
}

}  // namespace troupe::kernels
