// Linear with a weight packed as i8: 8-bit products with a scale a row of x and a scale a row of W, chosen as
// they come (LLM.int8(), Dettmers et al. 2022, section 2, without its outliers).
#include "kernels/cpu/loops/int8.hpp"

#include "kernels/base/error.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

constexpr int64_t kDepthMax = 65'536;  // sums of 8-bit products then fit into 32 bits

// scales, corrections, integers
Int8Weight layout(int64_t n, int64_t k, void* memory) {
  const int64_t channels = round_up(n, kInt8Columns);
  auto* const scales = static_cast<float*>(memory);
  auto* const corrections = reinterpret_cast<int32_t*>(scales + channels);
  return {n, round_up(k, kInt8Depth), scales, corrections, reinterpret_cast<int8_t*>(corrections + channels)};
}

}  // namespace

size_t CpuStream::packed_bytes_int8(int64_t n, int64_t k) {
  const int64_t bytes_a_channel = int64_t(sizeof(float) + sizeof(int32_t)) + round_up(k, kInt8Depth);
  return size_t(round_up(n, kInt8Columns) * bytes_a_channel + 63) / 64 * 64;
}

PackedWeight CpuStream::pack_int8(ConstView master, void* destination) {
  TROUPE_CHECK(master.dtype == DType::f32);
  if (master.cols > kDepthMax)
    throw error(ErrorKind::usage,
                "cannot round a matrix with rows of {} to 8 bits: at most {}; leave --int8 out", master.cols,
                kDepthMax);
  loops_.int8->pack(master.as<float>(), master.cols, master.stride,
                    layout(master.rows, master.cols, destination));
  return {destination, master.rows, master.cols, DType::i8, Packing::inference};
}

void CpuStream::linear_forward_int8(ConstView x, PackedWeight weight, ConstView bias, View y) {
  TROUPE_CHECK(x.cols == weight.k && y.rows == x.rows && y.cols == weight.n);
  Scratch::Frame frame(scratch_);
  const Int8Weight w = layout(weight.n, weight.k, const_cast<void*>(weight.data));
  const Int8Rows rows{x.rows, w.depth, frame.take<float>(x.rows), frame.take<int8_t>(x.rows * w.depth)};
  if (x.dtype == DType::f32)
    loops_.int8->quantise_f32(x.as<float>(), x.cols, x.stride, rows);
  else
    loops_.int8->quantise_bf16(x.as<uint16_t>(), x.cols, x.stride, rows);
  const float* const add = bias.empty() ? nullptr : bias.as<float>();
  if (y.dtype == DType::f32)
    loops_.int8->multiply_f32(rows, w, add, y.as<float>(), y.stride);
  else
    loops_.int8->multiply_bf16(rows, w, add, y.as<uint16_t>(), y.stride);
}

}  // namespace troupe::kernels
