// How a CudaStream chooses among the kernels of one operation: by type, and by whether rows can be read
// sixteen bytes at a time.
#pragma once

#include <type_traits>

#include "kernels/backend.hpp"
#include "kernels/cuda/device/elementwise.hpp"

namespace troupe::kernels {

// f(T{}) with the type of the view's elements.
template <typename F>
void with_compute_type(DType type, F&& f) {
  TROUPE_CHECK(type == DType::f32 || type == DType::bf16, "a compute type, not {}", to_string(type));
  if (type == DType::bf16)
    f(uint16_t{});
  else
    f(float{});
}
// f(constant) with 8 or 1: how many elements a thread takes.
template <typename F>
void with_width(bool vectors, F&& f) {
  if (vectors)
    f(std::integral_constant<int, device::kVector>{});
  else
    f(std::integral_constant<int, 1>{});
}

// Whether every row of the view starts at a multiple of 16 bytes and holds whole vectors.
inline bool takes_vectors(ConstView view) {
  if (view.empty()) return true;
  const size_t row_bytes = size_t(view.stride) * size_of(view.dtype);
  return view.cols % device::kVector == 0 && reinterpret_cast<uintptr_t>(view.data) % 16 == 0 &&
         (view.rows <= 1 || row_bytes % 16 == 0);
}
template <typename... Views>
bool all_take_vectors(const Views&... views) {
  return (takes_vectors(views) && ...);
}

template <typename T>
device::Rows<const T> rows_of(ConstView view) {
  return {view.empty() ? nullptr : view.as<T>(), view.stride};
}
template <typename T>
device::Rows<T> rows_of(View view) {
  return {view.empty() ? nullptr : view.as<T>(), view.stride};
}

// The same elements as one row where rows follow one another in all views: `flat` says that they do.
template <typename AnyView>
AnyView flattened(AnyView view, bool flat) {
  if (flat && !view.empty()) {
    view.cols = view.stride = view.rows * view.cols;
    view.rows = view.rows == 0 ? 0 : 1;
  }
  return view;
}

inline void check_same_shape(ConstView a, ConstView b) {
  TROUPE_CHECK(a.rows == b.rows && a.cols == b.cols, "{} x {} and {} x {}", a.rows, a.cols, b.rows, b.cols);
}

}  // namespace troupe::kernels
