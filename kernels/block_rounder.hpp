// Rounds blocks of an integer total one at a time, for loops that do more with a block while it is in cache:
// what round_total() does to each.
#pragma once

#include "kernels/cpu/loops/exact_sum.hpp"
#include "kernels/exact_sum.hpp"

namespace troupe::kernels {

class BlockRounder {
 public:
  explicit BlockRounder(const RoundOptions& options);
  // `values` are the block's elements; `out` has been resized to the layout.
  RoundedBlock round(int64_t index, BlockLayout::Block block, const int64_t* values,
                     RoundedTotal& out) const {
    const RoundedBlock rounded =
        loops_.round(values, block.count, uint64_t(block.offset), &rule_, out.mantissa.data() + block.offset);
    out.shift[size_t(index)] = uint8_t(rounded.shift);
    return rounded;
  }

 private:
  const RoundRule rule_;
  const ExactSumLoops& loops_;
};

}  // namespace troupe::kernels
