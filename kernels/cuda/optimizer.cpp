#include "kernels/cuda/device/optimizer.hpp"

#include "kernels/base/det_math.hpp"
#include "kernels/checks.hpp"
#include "kernels/cuda/accumulator.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

namespace {

device::AdamWNumbers numbers_of(const AdamW& args) {
  TROUPE_CHECK(args.bias_correction1 > 0 && args.bias_correction2 > 0);
  device::AdamWNumbers rule{};
  rule.gradient_scale = double(args.gradient_scale);
  rule.beta1 = args.beta1;
  rule.beta2 = args.beta2;
  rule.one_minus_beta1 = 1 - args.beta1;
  rule.one_minus_beta2 = 1 - args.beta2;
  rule.step = args.learning_rate / args.bias_correction1;
  rule.inverse_root_correction2 = float(1 / det::sqrt(double(args.bias_correction2)));
  rule.epsilon = args.epsilon;
  rule.decay = 1 - args.learning_rate * args.weight_decay;
  return rule;
}

}  // namespace

// Mantissas and shifts of blocks [begin, end) on the device.
struct CudaStream::PlacedTotal {
  device::LayoutTable layout;
  const int32_t* mantissa;
  const uint8_t* shift;
  int64_t offset;
};

CudaStream::PlacedTotal CudaStream::place(const BlockLayout& layout, const RoundedTotal& total, int64_t begin,
                                          int64_t end, Scratch::Frame& frame) {
  check_total(layout, total);
  const int64_t offset = layout.block(begin).offset, count = layout.elements_in(begin, end);
  return {place(layout, frame),
          place(std::span(total.mantissa).subspan(size_t(offset), size_t(count)), frame),
          place(std::span(total.shift).subspan(size_t(begin), size_t(end - begin)), frame), offset};
}

void CudaStream::square_sums(const PlacedTotal& total, int64_t begin, int64_t end, double* sums) {
  Scratch::Frame frame(scratch_);
  device::BlockSquareSums kernel;
  kernel.first = begin;
  kernel.blocks = end - begin;
  kernel.layout = total.layout;
  kernel.mantissa = total.mantissa;
  kernel.offset = total.offset;
  kernel.shift = total.shift;
  kernel.sums = frame.take<double>(end - begin);
  launch(kernel, kernel.grid(end - begin), "block square sums");
  runtime_->copy_out(sums, kernel.sums, size_t(end - begin) * sizeof(double));
}

void CudaStream::update(const AdamW& args, const PlacedTotal& total, int64_t begin, int64_t end,
                        const StateArrays& state) {
  device::AdamWBlocks kernel;
  kernel.first = begin;
  kernel.blocks = end - begin;
  kernel.layout = total.layout;
  kernel.mantissa = total.mantissa;
  kernel.offset = total.offset;
  kernel.shift = total.shift;
  kernel.rule = numbers_of(args);
  kernel.weight = state.weight;
  kernel.moment1 = state.moment1;
  kernel.moment2 = state.moment2;
  launch(kernel, kernel.grid(end - begin), "AdamW");
}

void CudaStream::block_square_sums(const BlockLayout& layout, const RoundedTotal& total, int64_t begin,
                                   int64_t end, double* sums) {
  if (begin == end) return check_total(layout, total);
  Scratch::Frame frame(scratch_);
  square_sums(place(layout, total, begin, end, frame), begin, end, sums);
}

void CudaStream::adamw(const AdamW& args, const BlockLayout& layout, const RoundedTotal& total, int64_t begin,
                       int64_t end, float* weight, float* moment1, float* moment2) {
  if (begin == end) return check_total(layout, total);
  Scratch::Frame frame(scratch_);
  update(args, place(layout, total, begin, end, frame), begin, end, {weight, moment1, moment2});
}

void CudaStream::block_square_sums(const DeviceTotal& total, double* sums) {
  square_sums({total.table(), total.mantissa(), total.shift(), 0}, 0, total.layout().blocks(), sums);
}

void CudaStream::adamw(const AdamW& args, const DeviceTotal& total, int64_t begin, int64_t end,
                       const StateArrays& state) {
  TROUPE_CHECK(begin >= 0 && begin <= end && end <= total.layout().blocks(), "blocks [{}, {})", begin, end);
  update(args, {total.table(), total.mantissa(), total.shift() + begin, 0}, begin, end, state);
}

}  // namespace troupe::kernels
