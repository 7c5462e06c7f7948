// Linear with a weight packed for inference. oneDNN's products copy the weight into a form of their own at
// every call and choose their order of sums by the number of rows; here it is in its form from the start, the
// same at every instruction-set level, and a row's sums do not depend on the other rows.
#include "kernels/cpu/loops/panels.hpp"

#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

constexpr int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

PanelWeight layout(const PackedWeight& weight) {
  const int64_t depth = weight.dtype == DType::bf16 ? round_up(weight.k, 2) : weight.k;
  return {weight.n, depth, depth * kPanelColumns, const_cast<void*>(weight.data)};
}

// Rows so far apart meet in few sets of the nearest cache, which has eight ways: a tile reads twelve at once.
bool rows_collide(ConstView x) {
  return x.rows > 8 && x.stride * int64_t(size_of(x.dtype)) % 2048 == 0;
}

}  // namespace

size_t CpuStream::packed_bytes_panels(int64_t n, int64_t k, DType dtype) {
  return size_t(round_up(n, kPanelColumns) * round_up(k, 2)) * size_of(dtype);
}

PackedWeight CpuStream::pack_panels(ConstView master, DType dtype, void* destination) {
  TROUPE_CHECK(master.dtype == DType::f32 && (dtype == DType::f32 || dtype == DType::bf16));
  const PackedWeight weight{destination, master.rows, master.cols, dtype, Packing::inference};
  if (dtype == DType::f32) {
    loops_.panels->pack_f32(master.as<float>(), master.cols, master.stride, layout(weight));
    return weight;
  }
  Scratch::Frame frame(scratch_);
  const View rounded{frame.take<uint16_t>(master.size()), dtype, master.rows, master.cols, master.cols};
  convert(master, rounded);
  loops_.panels->pack_bf16(rounded.as<uint16_t>(), rounded.cols, rounded.stride, layout(weight));
  return weight;
}

void CpuStream::linear_forward_panels(ConstView x, PackedWeight weight, ConstView bias, View y) {
  TROUPE_CHECK(x.cols == weight.k && x.dtype == weight.dtype && y.rows == x.rows && y.cols == weight.n);
  multiply_panels(x, layout(weight), bias, y, false);
}

void CpuStream::multiply_panels(ConstView x, const PanelWeight& weight, ConstView bias, View y,
                                bool accumulate) {
  Scratch::Frame frame(scratch_);
  const bool padded = weight.depth != x.cols;  // the second of a pair would lie beyond the row
  if (padded || rows_collide(x)) {
    const int64_t stride = weight.depth + kPanelColumns;
    const View copy{frame.take<char>(x.rows * stride * int64_t(size_of(x.dtype))), x.dtype, x.rows,
                    weight.depth, stride};
    if (padded) fill_zero(copy.col_range(x.cols, weight.depth - x.cols));
    convert(x, copy.col_range(0, x.cols));
    x = copy;
  }
  const PanelRows rows{x.data, x.rows, x.stride};
  const PanelResult result{y.data, y.stride, bias.empty() ? nullptr : bias.as<float>(), accumulate};
  if (x.dtype == DType::f32)
    loops_.panels->multiply_f32(rows, weight, result);
  else if (y.dtype == DType::f32)
    loops_.panels->multiply_bf16_to_f32(rows, weight, result);
  else
    loops_.panels->multiply_bf16(rows, weight, result);
}

}  // namespace troupe::kernels
