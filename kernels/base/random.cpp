#include "kernels/base/random.hpp"

#include "kernels/base/error.hpp"

namespace troupe {

Permutation::Permutation(uint64_t key, uint64_t size) : philox_(philox_from(key)), size_(size), half_bits_(1) {
  TROUPE_CHECK(size <= (uint64_t{1} << 62));
  while ((uint64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
}

uint64_t Permutation::operator()(uint64_t index) const {
  TROUPE_CHECK(index < size_, "index {} of {}", index, size_);
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t value = index;
  do {
    uint64_t left = value >> half_bits_, right = value & mask;
    for (uint64_t round = 0; round < 6; ++round) {
      const uint64_t next = left ^ (philox_(right, round)[0] & mask);
      left = right;
      right = next;
    }
    value = (left << half_bits_) | right;
  } while (value >= size_);
  return value;
}

}  // namespace troupe
