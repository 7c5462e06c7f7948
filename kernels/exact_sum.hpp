// Exact sums of gradients: integers on one fixed grid, which have no order.
//
// The flat parameter space is cut into blocks of at most 256 elements (an embedding row starts a block of its own).
// A slot rounds each block of its gradient to `bits` bits below that block's own largest exponent and adds it, as
// 64-bit integers in units of 2^-40, to an accumulator. Integer sums are associative, so the total over all slots is
// the same bits whoever computed which slot in whatever order. The total is rounded once more per block (RoundedTotal).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/tensor.hpp"

namespace troupe::kernels {

inline constexpr int kGridExponent = -40;   // one unit of an accumulator is 2^-40
inline constexpr int64_t kBlockMax = 256;   // elements in a block, at most
inline constexpr int kFullBits = 24;        // `bits` of the full mode; its totals are rounded to 32

// How the flat parameter space is cut into blocks. Segments follow one another without gaps; blocks do not cross the
// rows of a segment. Immutable; shared freely between threads.
class BlockLayout {
 public:
  struct Segment {
    int64_t offset = 0;      // first element in the flat space
    int64_t count = 0;       // elements; a multiple of row
    int64_t row = 0;         // a block never crosses a multiple of this; `count` itself for all but embeddings
    int64_t first_block = 0;
  };
  struct Block {
    int64_t offset = 0;
    int64_t count = 0;       // 1..256
  };

  // Appends a segment of `count` elements whose blocks end at multiples of `row`; returns its offset.
  int64_t append(int64_t count, int64_t row);

  int64_t elements() const { return elements_; }
  int64_t blocks() const { return blocks_; }
  const std::vector<Segment>& segments() const { return segments_; }
  Block block(int64_t index) const;              // REQUIRES index < blocks(); O(log segments)
  int64_t block_at(int64_t offset) const;        // the block that starts at this element; CHECKs that one does
  bool operator==(const BlockLayout&) const;

 private:
  std::vector<Segment> segments_;
  int64_t elements_ = 0;
  int64_t blocks_ = 0;
};

// Flags of a SUM: any of them makes the step a skipped one.
enum SumFlags : uint32_t { kSumClean = 0, kSumNotFinite = 1, kSumOverflow = 2 };

struct FoldOptions {
  int bits = kFullBits;      // 2..24; 8 and less round stochastically
  int slots = 1;             // V: a folded value beyond 2^(62 - ceil(log2 V)) units raises kSumOverflow
  uint64_t random_key = 0;   // from (seed, step, slot); used by stochastic rounding, counter = element offset
};

// A total over all slots as F sees it: each block is integers of at most `bits` bits (32 in full mode) and a shift:
// gradient[i] = mantissa[i] * 2^(shift[block] + kGridExponent). Canonical: a pure function of the integer total.
struct RoundedTotal {
  std::vector<int32_t> mantissa;  // elements()
  std::vector<uint8_t> shift;     // blocks()
};

}  // namespace troupe::kernels
