#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/block_rounder.hpp"
#include "kernels/checks.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

constexpr int kFullTotalBits = 32;

RoundRule rule_of(const RoundOptions& options) {
  TROUPE_CHECK(options.bits >= 2 && options.bits <= kFullBits, "bits {}", options.bits);
  return {options.bits == kFullBits ? kFullTotalBits : options.bits, options.random_key};
}

void check_sizes(const BlockLayout& layout, size_t values, int64_t begin, int64_t end,
                 const RoundedTotal& out) {
  TROUPE_CHECK(int64_t(values) == layout.elements_in(begin, end), "{} values for {} elements", values,
               layout.elements_in(begin, end));
  check_total(layout, out);
}

// A value on the grid, saturated far below what 64 bits hold; NaN becomes the largest.
int64_t to_grid(float value) {
  constexpr double kLimit = 0x1p61;
  if (std::isnan(value)) return int64_t(kLimit);
  const double units = std::min(std::max(double(value) * 0x1p40, -kLimit), kLimit);
  return int64_t(units + (units < 0 ? -0.5 : 0.5));
}

}  // namespace

BlockRounder::BlockRounder(const RoundOptions& options)
    : rule_(rule_of(options)), loops_(*loops_of(best_isa_level()).exact_sum) {}

void round_total(const BlockLayout& layout, std::span<const int64_t> total, const RoundOptions& options,
                 int64_t begin, int64_t end, RoundedTotal& out) {
  check_sizes(layout, total.size(), begin, end, out);
  const BlockRounder rounder(options);
  const int64_t* values = total.data();
  layout.for_each(begin, end, [&](int64_t index, BlockLayout::Block block) {
    rounder.round(index, block, values, out);
    values += block.count;
  });
}

void round_float_total(const BlockLayout& layout, std::span<const float> total, int64_t begin, int64_t end,
                       RoundedTotal& out) {
  check_sizes(layout, total.size(), begin, end, out);
  const RoundRule rule{kFullTotalBits, 0};
  const ExactSumLoops& loops = *loops_of(best_isa_level()).exact_sum;
  const float* values = total.data();
  layout.for_each(begin, end, [&](int64_t index, BlockLayout::Block block) {
    std::array<int64_t, size_t(kBlockMax)> units;
    std::transform(values, values + block.count, units.begin(), to_grid);
    const RoundedBlock rounded = loops.round(units.data(), block.count, uint64_t(block.offset), &rule,
                                             out.mantissa.data() + block.offset);
    out.shift[size_t(index)] = uint8_t(rounded.shift);
    values += block.count;
  });
}

}  // namespace troupe::kernels
