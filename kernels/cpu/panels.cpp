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
  return {weight.n, weight.dtype == DType::bf16 ? round_up(weight.k, 2) : weight.k,
          const_cast<void*>(weight.data)};
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
  const PanelWeight panels = layout(weight);
  const float* const add = bias.empty() ? nullptr : bias.as<float>();
  if (x.dtype == DType::f32) {
    const PanelRows rows{x.data, x.rows, x.stride};
    return loops_.panels->multiply_f32(rows, panels, add, y.as<float>(), y.stride);
  }
  Scratch::Frame frame(scratch_);
  if (panels.depth != x.cols) {  // the second of a pair would lie beyond the row
    const View padded{frame.take<uint16_t>(x.rows * panels.depth), x.dtype, x.rows, panels.depth,
                      panels.depth};
    fill_zero(padded);
    convert(x, padded.col_range(0, x.cols));
    x = padded;
  }
  const PanelRows rows{x.data, x.rows, x.stride};
  if (y.dtype == DType::f32)
    loops_.panels->multiply_bf16_to_f32(rows, panels, add, y.as<float>(), y.stride);
  else
    loops_.panels->multiply_bf16(rows, panels, add, y.as<uint16_t>(), y.stride);
}

}  // namespace troupe::kernels
