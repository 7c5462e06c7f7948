// The shape that kernels over single elements share: a block of 256 threads takes a tile of 256 * N elements
// of a matrix in row-major order, N (1 or 8) a thread. Matrices whose rows follow one another come as one
// row.
#pragma once

#include "kernels/cuda/device/dropout.hpp"
#include "kernels/cuda/device/portable.hpp"

namespace troupe::kernels::device {

constexpr int kElementThreads = 256;

struct Shape {
  int64_t rows = 0;
  int64_t cols = 0;  // a multiple of N

  TROUPE_DEVICE int64_t size() const { return rows * cols; }
};

// The N elements of one thread.
struct Place {
  int64_t element;  // of the first, in row-major order: dropout's counter
  int64_t row;
  int64_t col;
};

template <int N>
struct ElementTile {
  static constexpr int kThreads = kElementThreads;
  static constexpr int64_t kElements = int64_t{kThreads} * N;
  using Registers = NoRegisters;
  struct Shared {
    uint32_t words[size_t(kElements)];
  };

  static int64_t blocks(const Shape& shape) { return ceil_div(shape.rows * shape.cols, kElements); }

  // f(place, words) for each thread that has elements; words[i] is the random word of element i of its N, and
  // may be read when the rule drops.
  template <typename Block, typename F>
  static TROUPE_DEVICE void run(Block& block, const Shape& shape, const DropoutRule& rule, F&& f) {
    const int64_t first = block.index() * kElements;
    const int64_t count = smaller(kElements, shape.size() - first);
    uint32_t* words = block.shared().words;
    if (rule.drops())
      block.each([&](int thread, NoRegisters&) {
        draw_words(rule.key, uint64_t(first), count, thread, kThreads, words);
      });
    block.each([&](int thread, NoRegisters&) {
      const int64_t at = int64_t{thread} * N;
      if (at >= count) return;
      const int64_t element = first + at, row = shape.rows == 1 ? 0 : element / shape.cols;
      f(Place{element, row, element - row * shape.cols}, words + at);
    });
  }
};

}  // namespace troupe::kernels::device
