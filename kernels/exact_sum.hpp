// Exact sums of gradients: integers on one fixed grid, which have no order.
//
// The flat parameter space is cut into blocks of at most 256 elements (an embedding row starts a block of its
// own). A slot rounds each block of its gradient to `bits` bits below that block's own largest exponent and
// adds it, as 64-bit integers in units of 2^-40, to an accumulator. Integer sums are associative, so the
// total over all slots is the same bits whoever computed which slot in whatever order. The total is rounded
// once more per block (RoundedTotal).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/tensor.hpp"

namespace troupe::kernels {

inline constexpr int kGridExponent = -40;  // one unit of an accumulator is 2^-40
inline constexpr int64_t kBlockMax = 256;  // elements in a block, at most
inline constexpr int kFullBits = 24;       // `bits` of the full mode; its totals are rounded to 32

// How the flat parameter space is cut into blocks. Segments follow one another without gaps; blocks do not
// cross the rows of a segment. Immutable; shared freely between threads.
class BlockLayout {
 public:
  struct Block {
    int64_t offset = 0;
    int64_t count = 0;  // 1..256
  };
  struct Segment {
    int64_t offset = 0;  // first element in the flat space
    int64_t count = 0;   // elements; a multiple of row
    int64_t row = 0;     // a block never crosses a multiple of this; `count` itself for all but embeddings
    int64_t first_block = 0;
    int64_t blocks_a_row() const { return (row + kBlockMax - 1) / kBlockMax; }
    int64_t blocks() const { return row == 0 ? 0 : count / row * blocks_a_row(); }
    Block block(int64_t index) const;  // REQUIRES 0 <= index < blocks(), counted from first_block
    bool operator==(const Segment&) const = default;
  };
  // Appends a segment of `count` elements whose blocks end at multiples of `row`; returns its offset.
  int64_t append(int64_t count, int64_t row);

  int64_t elements() const { return elements_; }
  int64_t blocks() const { return blocks_; }
  const std::vector<Segment>& segments() const { return segments_; }
  Block block(int64_t index) const;  // REQUIRES index < blocks(); O(log segments)
  int64_t block_at(int64_t offset)
      const;  // the block that starts at this element (blocks() at the end); CHECKs that one does
  // Elements of blocks [begin, end): they are contiguous, and start at block(begin).offset.
  int64_t elements_in(int64_t begin, int64_t end) const;
  bool operator==(const BlockLayout&) const;

  // Calls visit(index, Block) for blocks [begin, end) in order, without a search per block.
  template <typename Visit>
  void for_each(int64_t begin, int64_t end, Visit&& visit) const;
  // Calls visit(segment, first, stop), blocks counted from the segment's first, for the segments of blocks
  // [begin, end).
  template <typename Visit>
  void for_each_segment(int64_t begin, int64_t end, Visit&& visit) const;

 private:
  size_t segment_of_block(int64_t index) const;

  std::vector<Segment> segments_;
  int64_t elements_ = 0;
  int64_t blocks_ = 0;
};

// Flags of a SUM: any of them makes the step a skipped one.
enum SumFlags : uint32_t { kSumClean = 0, kSumNotFinite = 1, kSumOverflow = 2 };

struct FoldOptions {
  int bits = kFullBits;     // 2..24; 8 and less round stochastically
  int slots = 1;            // V: beyond 2^(60 - ceil(log2 V)) units a value raises kSumOverflow; at
                            // half of that for 8 bits and less, since rounding up may double a value
  uint64_t random_key = 0;  // from (seed, step, slot); used by stochastic rounding, counter = element offset
};

// The largest magnitude that the options let a value have; beyond it kSumOverflow is raised. A total of V
// slots stays below 2^62 units even when each folds an element three times, as it does where one matrix is
// source embedding, target embedding and output projection. CHECKs the options.
float fold_limit(const FoldOptions& options);

// A total over all slots as F sees it: each block is integers of at most `bits` bits (32 in full mode) and a
// shift: gradient[i] = mantissa[i] * 2^(shift[block] + kGridExponent). Canonical: a pure function of the
// integer total.
struct RoundedTotal {
  std::vector<int32_t> mantissa;  // elements()
  std::vector<uint8_t> shift;     // blocks()

  void resize(const BlockLayout& layout);  // to the sizes above; what is new is zero
  bool operator==(const RoundedTotal&) const = default;
};

// How the total is rounded: as a slot's gradient is, but to 32 bits when the job's `bits` is 24. `random_key`
// comes from (seed, step) alone, so that whoever rounds a block gets the same integers.
struct RoundOptions {
  int bits = kFullBits;
  uint64_t random_key = 0;
};

// Rounds the integer totals of blocks [begin, end) into their places in `out`, which has been resized to the
// layout. `total` holds these blocks' elements and nothing else. Pure per block: ranges may be shared out
// between threads and nodes as one likes. Within a block of `b` bits the step is the smallest power of two
// with max |total| <= (2^(b-1) - 1) * step; to nearest, ties to even; for b <= 8 stochastic and unbiased.
void round_total(const BlockLayout& layout, std::span<const int64_t> total, const RoundOptions& options,
                 int64_t begin, int64_t end, RoundedTotal& out);
// The same for a plain float sum (the yardstick): each value goes to the grid, then as above in the full
// mode.
void round_float_total(const BlockLayout& layout, std::span<const float> total, int64_t begin, int64_t end,
                       RoundedTotal& out);

// Adds in one fixed tree over the indices: a range of n is split at the largest power of two below n. So the
// sum over all blocks is the same bits however the work on the single blocks was shared out.
double fixed_tree_sum(std::span<const double> values);

template <typename Visit>
void BlockLayout::for_each_segment(int64_t begin, int64_t end, Visit&& visit) const {
  TROUPE_CHECK(begin >= 0 && begin <= end && end <= blocks_, "blocks [{}, {}) of {}", begin, end, blocks_);
  if (begin == end) return;
  for (size_t s = segment_of_block(begin); begin < end; ++s) {
    const Segment& segment = segments_[s];
    const int64_t last = segment.first_block + segment.blocks(), stop = end < last ? end : last;
    visit(segment, begin - segment.first_block, stop - segment.first_block);
    begin = stop;
  }
}

template <typename Visit>
void BlockLayout::for_each(int64_t begin, int64_t end, Visit&& visit) const {
  for_each_segment(begin, end, [&](const Segment& segment, int64_t first, int64_t stop) {
    Block block = segment.block(first);
    int64_t left = segment.row - (block.offset - segment.offset) % segment.row;  // of the block's row
    for (int64_t index = first; index < stop; ++index) {
      visit(segment.first_block + index, block);
      left -= block.count;
      if (left == 0) left = segment.row;
      block = {block.offset + block.count, left < kBlockMax ? left : kBlockMax};
    }
  });
}

}  // namespace troupe::kernels
