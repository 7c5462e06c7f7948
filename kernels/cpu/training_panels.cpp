// Linear with a bf16 weight packed for training, at level v4: the weight lies in panels twice, with its input
// channels as the depth for the forward pass and with its output channels for the gradient of the input. The
// gradient of the weight packs both of its factors so, rows as the depth. oneDNN's products copy their
// factors into such a form at each call, and are 4 to 8 % slower here (docs/performance.md).
#include <algorithm>

#include "kernels/cpu/loops/panels.hpp"
#include "kernels/cpu/loops/row_panels.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

constexpr int64_t kDepthMax = 2048;  // rows of a weight's gradient at once: three panels stay in a near cache

constexpr int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// (n, depth), panels one behind the other.
PanelWeight whole(int64_t n, int64_t depth, void* elements) {
  return {n, round_up(depth, 2), round_up(depth, 2) * kPanelColumns, elements};
}
int64_t elements_of(const PanelWeight& panels) {
  return round_up(panels.n, kPanelColumns) / kPanelColumns * panels.panel;
}
PanelWeight forward_part(const PackedWeight& weight) {
  return whole(weight.n, weight.k, const_cast<void*>(weight.data));
}
PanelWeight backward_part(const PackedWeight& weight) {
  return whole(weight.k, weight.n,
               static_cast<uint16_t*>(const_cast<void*>(weight.data)) + elements_of(forward_part(weight)));
}
// From `first` of the depth on, a multiple of 2.
PanelWeight depth_range(PanelWeight panels, int64_t first, int64_t count) {
  panels.elements = static_cast<uint16_t*>(panels.elements) + first * kPanelColumns;
  panels.depth = round_up(count, 2);
  return panels;
}
// From channel `first` on, a multiple of 16.
PanelWeight channel_range(PanelWeight panels, int64_t first, int64_t count) {
  panels.elements = static_cast<uint16_t*>(panels.elements) + first / kPanelColumns * panels.panel;
  panels.n = count;
  return panels;
}

}  // namespace

size_t CpuStream::packed_bytes_training_panels(int64_t n, int64_t k) {
  return size_t(elements_of(whole(n, k, nullptr)) + elements_of(whole(k, n, nullptr))) * sizeof(uint16_t);
}

PackedWeight CpuStream::pack_training_panels(ConstView master, void* destination) {
  const PackedWeight weight{destination, master.rows, master.cols, DType::bf16};
  const PanelWeight forward = forward_part(weight), backward = backward_part(weight);
  Scratch::Frame frame(scratch_);
  uint16_t* const rounded = frame.take<uint16_t>(kPanelColumns * master.cols);
  for (int64_t first = 0; first < master.rows; first += kPanelColumns) {
    const int64_t rows = std::min(kPanelColumns, master.rows - first);
    convert(master.row_range(first, rows), View{rounded, DType::bf16, rows, master.cols, master.cols});
    loops_.panels->pack_bf16(rounded, master.cols, master.cols, channel_range(forward, first, rows));
    loops_.row_panels->pack(rounded, rows, master.cols, depth_range(backward, first, rows), nullptr);
  }
  return weight;
}

void CpuStream::forward_panels(ConstView x, PackedWeight weight, Channels channels, ConstView bias, View y) {
  TROUPE_CHECK(channels.first % kPanelColumns == 0);
  multiply_panels(x, channel_range(forward_part(weight), channels.first, channels.count), bias, y, false);
}

void CpuStream::backward_panels(ConstView dy, PackedWeight weight, Channels channels, View dx,
                                bool accumulate) {
  TROUPE_CHECK(channels.first % kPanelColumns == 0);
  multiply_panels(dy, depth_range(backward_part(weight), channels.first, channels.count), {}, dx, accumulate);
}

void CpuStream::weight_gradient_panels(ConstView dy, ConstView x, View dw, View dbias) {
  if (!dbias.empty()) fill_zero(dbias);
  for (int64_t first = 0; first < dy.rows; first += kDepthMax) {
    const int64_t rows = std::min(kDepthMax, dy.rows - first);
    Scratch::Frame frame(scratch_);
    const auto pack = [&](ConstView matrix, View sums) {
      PanelWeight panels = whole(matrix.cols, rows, nullptr);
      panels.elements = frame.take<uint16_t>(elements_of(panels));
      loops_.row_panels->pack(matrix.row_range(first, rows).as<uint16_t>(), rows, matrix.stride, panels,
                              sums.empty() ? nullptr : sums.as<float>());
      return panels;
    };
    loops_.row_panels->multiply(pack(dy, dbias), pack(x, {}), {dw.data, dw.stride, nullptr, first > 0});
  }
}

}  // namespace troupe::kernels
