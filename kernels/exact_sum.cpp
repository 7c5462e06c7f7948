#include "kernels/exact_sum.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace troupe::kernels {

BlockLayout::Block BlockLayout::Segment::block(int64_t index) const {
  const int64_t a_row = blocks_a_row();
  const int64_t in_row = index % a_row * kBlockMax;
  return {offset + index / a_row * row + in_row, std::min(kBlockMax, row - in_row)};
}

int64_t BlockLayout::append(int64_t count, int64_t row) {
  TROUPE_CHECK(count >= 0 && row >= 0, "a segment of {} elements in rows of {}", count, row);
  const int64_t offset = elements_;
  if (count == 0) return offset;
  TROUPE_CHECK(row > 0 && count % row == 0, "a segment of {} elements is not made of rows of {}", count, row);
  segments_.push_back({offset, count, row, blocks_});
  elements_ += count;
  blocks_ += segments_.back().blocks();
  return offset;
}

size_t BlockLayout::segment_of_block(int64_t index) const {
  TROUPE_CHECK(index >= 0 && index < blocks_, "block {} of {}", index, blocks_);
  const auto after =
      std::upper_bound(segments_.begin(), segments_.end(), index,
                       [](int64_t i, const Segment& segment) { return i < segment.first_block; });
  return size_t(after - segments_.begin()) - 1;
}

BlockLayout::Block BlockLayout::block(int64_t index) const {
  const Segment& segment = segments_[segment_of_block(index)];
  return segment.block(index - segment.first_block);
}

int64_t BlockLayout::block_at(int64_t offset) const {
  if (offset == elements_) return blocks_;
  TROUPE_CHECK(offset >= 0 && offset < elements_, "element {} of {}", offset, elements_);
  const auto after = std::upper_bound(segments_.begin(), segments_.end(), offset,
                                      [](int64_t o, const Segment& segment) { return o < segment.offset; });
  const Segment& segment = *(after - 1);
  const int64_t inside = offset - segment.offset;
  TROUPE_CHECK(inside % segment.row % kBlockMax == 0, "no block starts at element {}", offset);
  return segment.first_block + inside / segment.row * segment.blocks_a_row() +
         inside % segment.row / kBlockMax;
}

int64_t BlockLayout::elements_in(int64_t begin, int64_t end) const {
  TROUPE_CHECK(begin >= 0 && begin <= end && end <= blocks_, "blocks [{}, {}) of {}", begin, end, blocks_);
  const auto start = [this](int64_t index) { return index == blocks_ ? elements_ : block(index).offset; };
  return start(end) - start(begin);
}

bool BlockLayout::operator==(const BlockLayout& other) const {
  return segments_ == other.segments_;
}

float fold_limit(const FoldOptions& options) {
  TROUPE_CHECK(options.bits >= 2 && options.bits <= kFullBits, "bits {}", options.bits);
  TROUPE_CHECK(options.slots >= 1, "slots {}", options.slots);
  const bool stochastic = options.bits <= 8;
  const int slots_log2 = std::bit_width(unsigned(options.slots) - 1);
  return float(std::ldexp(1.0, 60 - slots_log2 - (stochastic ? 1 : 0) + kGridExponent));
}

double fixed_tree_sum(std::span<const double> values) {
  if (values.empty()) return 0;
  if (values.size() == 1) return values[0];
  const size_t left = std::bit_floor(values.size() - 1);
  return fixed_tree_sum(values.first(left)) + fixed_tree_sum(values.subspan(left));
}

void RoundedTotal::resize(const BlockLayout& layout) {
  mantissa.resize(size_t(layout.elements()));
  shift.resize(size_t(layout.blocks()));
}

}  // namespace troupe::kernels
