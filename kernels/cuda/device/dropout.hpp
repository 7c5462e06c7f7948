// The random words of kernels/dropout.hpp, drawn by many threads at once: one Philox call gives the words of
// four elements that lie sixteen apart, so the threads of a tile draw into shared memory and read there.
#pragma once

#include "kernels/base/random.hpp"
#include "kernels/cuda/device/portable.hpp"

namespace troupe::kernels::device {

// Elements whose word is below `threshold` become zero, the others are multiplied by `scale`.
struct DropoutRule {
  uint64_t key = 0;
  uint32_t threshold = 0;  // 0: nothing is dropped and nothing drawn
  float scale = 1;

  TROUPE_DEVICE bool drops() const { return threshold != 0; }
  TROUPE_DEVICE float factor(uint32_t word) const { return word < threshold ? 0.0f : scale; }
};

// Words that the elements of any run of `count` need in memory, from the multiple of 64 before the first on.
constexpr int words_room(int count) {
  return (count + 63 + 63) / 64 * 64;
}

// Thread `thread` of `threads` draws its part of the words of elements [first, first + count).
TROUPE_DEVICE void draw_words(uint64_t key, uint64_t first, int64_t count, int thread, int threads,
                              uint32_t* words) {
  const uint64_t begin = first & ~uint64_t{63};
  const int counters = int((int64_t(first - begin) + count + 63) / 64 * 16);
  for (int c = thread; c < counters; c += threads) {
    const auto four = philox_from(key)(begin / 4 + uint64_t(c));
    uint32_t* to = words + c / 16 * 64 + c % 16;
    TROUPE_UNROLL for (int i = 0; i < 4; ++i) to[16 * i] = four[size_t(i)];
  }
}
// Where element `element` of the run that starts at `first` has its word.
TROUPE_DEVICE uint32_t word_of(const uint32_t* words, uint64_t first, uint64_t element) {
  return words[element - (first & ~uint64_t{63})];
}

}  // namespace troupe::kernels::device
