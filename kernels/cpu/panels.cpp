// Linear with a weight packed for inference. oneDNN's products copy the weight into a form of their own at
// every call and choose their order of sums by the number of rows; here it is in its form from the start, the
// same at every instruction-set level, and a row's sums do not depend on the other rows.
#include "kernels/cpu/loops/panels.hpp"

#include <algorithm>

#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

PanelWeight layout(const PackedWeight& weight) {
  const int64_t depth = weight.dtype == DType::bf16 ? round_up(weight.k, 2) : weight.k;
  return {weight.n, depth, depth * kPanelColumns, const_cast<void*>(weight.data)};
}

// Rows so far apart meet in few sets of the nearest cache, which has eight ways: a tile reads twelve at once
// at v4, six at most below.
bool rows_collide(IsaLevel level, ConstView x) {
  return level == IsaLevel::v4 && x.rows > 8 && x.stride * int64_t(size_of(x.dtype)) % 2048 == 0;
}

// What of x is multiplied at once. Below v4 it stays in a near cache while all panels pass; at v4 all at once
// was as fast. Results in f32 take one part of the depth after another.
struct Part {
  int64_t rows, depth;
};
Part part_of(IsaLevel level, int64_t rows, int64_t depth, bool divisible) {
  constexpr int64_t kElements = 64 << 10, kDepth = 1024, kTile = 12;
  if (level == IsaLevel::v4) return {rows, depth};
  const int64_t part = divisible && depth > kDepth ? kDepth : depth;
  const int64_t fitting = std::max<int64_t>(kElements / part / kTile, 2) * kTile;
  const int64_t parts = std::max<int64_t>((rows + fitting / 2) / fitting, 1);  // all about as large
  return {round_up((rows + parts - 1) / parts, kTile / 2), part};
}

}  // namespace

size_t CpuStream::packed_bytes_panels(int64_t n, int64_t k, DType dtype) {
  return size_t(round_up(n, kPanelColumns) * round_up(k, 2)) * size_of(dtype);
}

PackedWeight CpuStream::pack_panels(ConstView master, DType dtype, void* destination) {
  TROUPE_CHECK(master.dtype == DType::f32 && (dtype == DType::f32 || dtype == DType::bf16));
  const PackedWeight weight{destination, master.rows, master.cols, dtype, Packing::inference};
  if (dtype == DType::f32) {
    const PanelWeight panels = layout(weight);
    loops_.panels->pack_f32(master.as<float>(), master.cols, master.stride, panels);
    // An odd depth leaves room behind the last panel, which goes into exported files with the rest.
    const size_t used = size_t(round_up(panels.n, kPanelColumns) * panels.depth) * sizeof(float);
    const size_t bytes = packed_bytes_panels(master.rows, master.cols, dtype);
    std::fill_n(static_cast<char*>(destination) + used, bytes - used, char{0});
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
  multiply_panels(x, layout(weight), weight.dtype, bias, y, false);
}

void CpuStream::multiply_panels(ConstView x, const PanelWeight& weight, DType held, ConstView bias, View y,
                                bool accumulate) {
  const Part part = part_of(level_, x.rows, weight.depth, y.dtype == DType::f32);
  for (int64_t first = 0; first < x.rows; first += part.rows) {
    const int64_t rows = std::min(part.rows, x.rows - first);
    multiply_rows(x.row_range(first, rows), weight, held, bias, y.row_range(first, rows), accumulate,
                  part.depth);
  }
}

void CpuStream::multiply_rows(ConstView x, const PanelWeight& weight, DType held, ConstView bias, View y,
                              bool accumulate, int64_t depth) {
  Scratch::Frame frame(scratch_);
  const bool padded = weight.depth != x.cols;  // the second of a pair would lie beyond the row
  if (padded || x.dtype != held || rows_collide(level_, x)) {
    const int64_t stride = weight.depth + kPanelColumns;
    const View copy{frame.take<char>(x.rows * stride * int64_t(size_of(held))), held, x.rows, weight.depth,
                    stride};
    if (padded) fill_zero(copy.col_range(x.cols, weight.depth - x.cols));
    convert(x, copy.col_range(0, x.cols));
    x = copy;
  }
  const PanelLoops& loops = *loops_.panels;
  const bool to_f32 = y.dtype == DType::f32;
  const auto multiply = x.dtype == DType::f32 ? (to_f32 ? loops.multiply_f32 : loops.multiply_f32_to_bf16)
                                              : (to_f32 ? loops.multiply_bf16_to_f32 : loops.multiply_bf16);
  const auto* const elements = static_cast<const char*>(x.data);
  auto* const weights = static_cast<char*>(weight.elements);
  const int64_t bytes = int64_t(size_of(held));
  auto before = accumulate ? PanelResult::added_to : PanelResult::overwritten;
  for (int64_t first = 0; first < weight.depth; first += depth) {
    const int64_t count = std::min(depth, weight.depth - first);
    const bool last = first + count == weight.depth;
    multiply({elements + first * bytes, x.rows, x.stride},
             {weight.n, count, weight.panel, weights + first * kPanelColumns * bytes},
             {y.data, y.stride, bias.empty() || !last ? nullptr : bias.as<float>(), before});
    if (!accumulate) before = PanelResult::continued;
  }
}

}  // namespace troupe::kernels
