// Linear with a weight packed for training in panels: pairs of bf16 at level v4, f32 at v3, where a weight of
// bf16 is rounded to it and widened again. It lies there twice, with its input channels as the depth for the
// forward pass and with its output channels for the gradient of the input. The gradient of the weight packs
// both of its factors so, rows as the depth. oneDNN's products copy their factors into such a form at each
// call, and are slower here (docs/performance.md).
#include <algorithm>

#include "kernels/cpu/loops/panels.hpp"
#include "kernels/cpu/loops/row_panels.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

// How weights lie at a level.
struct Form {
  DType held;
  int64_t group;      // elements of the depth that are multiplied at once
  int64_t depth_max;  // rows of a weight's gradient at once: their panels stay in a near cache
};
Form form_of(IsaLevel level) {
  return level == IsaLevel::v4 ? Form{DType::bf16, 2, 2048} : Form{DType::f32, 1, 512};
}

// (n, depth), panels of `columns` one behind the other.
PanelWeight whole(int64_t n, int64_t depth, const Form& form, int64_t columns, void* elements) {
  const int64_t rounded = round_up(depth, form.group);
  return {n, rounded, rounded * columns, elements};
}
int64_t bytes_of(const PanelWeight& panels, const Form& form, int64_t columns) {
  return round_up(panels.n, columns) / columns * panels.panel * int64_t(size_of(form.held));
}
void advance(PanelWeight& panels, int64_t elements, const Form& form) {
  panels.elements = static_cast<char*>(panels.elements) + elements * int64_t(size_of(form.held));
}
PanelWeight forward_part(const PackedWeight& weight, const Form& form) {
  return whole(weight.n, weight.k, form, kPanelColumns, const_cast<void*>(weight.data));
}
PanelWeight backward_part(const PackedWeight& weight, const Form& form) {
  const int64_t in_front = bytes_of(forward_part(weight, form), form, kPanelColumns);
  return whole(weight.k, weight.n, form, kPanelColumns,
               static_cast<char*>(const_cast<void*>(weight.data)) + in_front);
}
// From `first` of the depth on, a multiple of 2.
PanelWeight depth_range(PanelWeight panels, int64_t first, int64_t count, const Form& form) {
  advance(panels, first * kPanelColumns, form);
  panels.depth = round_up(count, form.group);
  return panels;
}
// From channel `first` on, a multiple of 16.
PanelWeight channel_range(PanelWeight panels, int64_t first, int64_t count, const Form& form) {
  advance(panels, first / kPanelColumns * panels.panel, form);
  panels.n = count;
  return panels;
}

}  // namespace

size_t CpuStream::packed_bytes_training_panels(int64_t n, int64_t k) const {
  const Form form = form_of(level_);
  const auto bytes = [&](int64_t columns, int64_t depth) {
    return bytes_of(whole(columns, depth, form, kPanelColumns, nullptr), form, kPanelColumns);
  };
  return size_t(bytes(n, k) + bytes(k, n));
}

PackedWeight CpuStream::pack_training_panels(ConstView master, DType dtype, void* destination) {
  const Form form = form_of(level_);
  const PackedWeight weight{destination, master.rows, master.cols, dtype};
  const PanelWeight forward = forward_part(weight, form), backward = backward_part(weight, form);
  const int64_t k = master.cols;
  Scratch::Frame frame(scratch_);
  uint16_t* const rounded = frame.take<uint16_t>(kPanelColumns * k);
  float* const widened = frame.take<float>(kPanelColumns * k);
  for (int64_t first = 0; first < master.rows; first += kPanelColumns) {
    const int64_t rows = std::min(kPanelColumns, master.rows - first);
    const PanelWeight ahead = channel_range(forward, first, rows, form),
                      back = depth_range(backward, first, rows, form);
    ConstView strip = master.row_range(first, rows);
    if (dtype == DType::bf16) {
      const View as_bf16{rounded, DType::bf16, rows, k, k};
      convert(strip, as_bf16);
      strip = as_bf16;
    }
    if (form.held == DType::bf16) {
      loops_.panels->pack_bf16(strip.as<uint16_t>(), k, strip.stride, ahead);
      loops_.row_panels->pack_right_bf16(strip.as<uint16_t>(), rows, strip.stride, back);
      continue;
    }
    if (dtype == DType::bf16) {
      const View as_f32 = view_of(widened, rows, k);
      convert(strip, as_f32);
      strip = as_f32;
    }
    loops_.panels->pack_f32(strip.as<float>(), k, strip.stride, ahead);
    loops_.row_panels->pack_right_f32(strip.as<float>(), rows, strip.stride, back);
  }
  return weight;
}

void CpuStream::forward_panels(ConstView x, PackedWeight weight, Channels channels, ConstView bias, View y) {
  TROUPE_CHECK(channels.first % kPanelColumns == 0);
  const Form form = form_of(level_);
  multiply_panels(x, channel_range(forward_part(weight, form), channels.first, channels.count, form),
                  form.held, bias, y, false);
}

void CpuStream::backward_panels(ConstView dy, PackedWeight weight, Channels channels, View dx,
                                bool accumulate) {
  TROUPE_CHECK(channels.first % kPanelColumns == 0);
  const Form form = form_of(level_);
  multiply_panels(dy, depth_range(backward_part(weight, form), channels.first, channels.count, form),
                  form.held, {}, dx, accumulate);
}

void CpuStream::weight_gradient_panels(ConstView dy, ConstView x, View dw, View dbias) {
  const Form form = form_of(level_);
  const RowPanelLoops& loops = *loops_.row_panels;
  float* const sums = dbias.empty() ? nullptr : dbias.as<float>();
  if (!dbias.empty()) fill_zero(dbias);
  for (int64_t first = 0; first < dy.rows; first += form.depth_max) {
    const int64_t rows = std::min(form.depth_max, dy.rows - first);
    const ConstView dy_rows = dy.row_range(first, rows), x_rows = x.row_range(first, rows);
    Scratch::Frame frame(scratch_);
    const auto panels_of = [&](int64_t n, int64_t columns) {
      PanelWeight panels = whole(n, rows, form, columns, nullptr);
      panels.elements = frame.take<char>(bytes_of(panels, form, columns));
      return panels;
    };
    const PanelWeight left = panels_of(dy.cols, loops.left_columns), right = panels_of(x.cols, kPanelColumns);
    if (dy.dtype == DType::bf16) {
      loops.pack_left_bf16(dy_rows.as<uint16_t>(), rows, dy.stride, left, sums);
      loops.pack_right_bf16(x_rows.as<uint16_t>(), rows, x.stride, right);
    } else {
      loops.pack_left_f32(dy_rows.as<float>(), rows, dy.stride, left, sums);
      loops.pack_right_f32(x_rows.as<float>(), rows, x.stride, right);
    }
    loops.multiply(
        left, right,
        {dw.data, dw.stride, nullptr, first > 0 ? PanelResult::added_to : PanelResult::overwritten});
  }
}

}  // namespace troupe::kernels
