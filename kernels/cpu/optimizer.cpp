#include "kernels/cpu/loops/optimizer.hpp"

#include "kernels/base/det_math.hpp"
#include "kernels/checks.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

// What one unit of a block's mantissas is worth.
double unit_of(const RoundedTotal& total, int64_t block) {
  return det::pow(2.0, int64_t(total.shift[size_t(block)]) + kGridExponent);
}

}  // namespace

void CpuStream::block_square_sums(const BlockLayout& layout, const RoundedTotal& total, int64_t begin,
                                  int64_t end, double* sums) {
  check_total(layout, total);
  layout.for_each(begin, end, [&](int64_t index, BlockLayout::Block block) {
    const double unit = unit_of(total, index);
    *sums++ = loops_.optimizer->square_sum(total.mantissa.data() + block.offset, block.count) * unit * unit;
  });
}

void CpuStream::adamw(const AdamW& args, const BlockLayout& layout, const RoundedTotal& total, int64_t begin,
                      int64_t end, float* weight, float* moment1, float* moment2) {
  check_total(layout, total);
  TROUPE_CHECK(args.bias_correction1 > 0 && args.bias_correction2 > 0);
  AdamWRule rule{};
  rule.beta1 = args.beta1;
  rule.beta2 = args.beta2;
  rule.one_minus_beta1 = 1 - args.beta1;
  rule.one_minus_beta2 = 1 - args.beta2;
  rule.step = args.learning_rate / args.bias_correction1;
  rule.inverse_root_correction2 = float(1 / det::sqrt(double(args.bias_correction2)));
  rule.epsilon = args.epsilon;
  rule.decay = 1 - args.learning_rate * args.weight_decay;
  layout.for_each(begin, end, [&](int64_t index, BlockLayout::Block block) {
    const int64_t at = block.offset;
    rule.gradient_factor = float(unit_of(total, index) * double(args.gradient_scale));
    loops_.optimizer->adamw(&rule, total.mantissa.data() + at, block.count, weight + at, moment1 + at,
                            moment2 + at);
  });
}

}  // namespace troupe::kernels
