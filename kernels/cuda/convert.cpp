#include "kernels/cuda/device/convert.hpp"

#include "kernels/cuda/dispatch.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

namespace {

template <typename From, typename To, int N>
device::Convert<From, To, N> convert_kernel(ConstView from, View to) {
  device::Convert<From, To, N> kernel;
  kernel.shape = {to.rows, to.cols};
  kernel.from = rows_of<From>(from);
  kernel.to = rows_of<To>(to);
  return kernel;
}

}  // namespace

void CudaStream::convert(ConstView from, View to) {
  check_same_shape(from, to);
  if (to.size() == 0) return;
  if (from.dtype == to.dtype) {
    const size_t bytes = size_of(to.dtype);
    runtime_->copy_rows(to.data, size_t(to.stride) * bytes, from.data, size_t(from.stride) * bytes,
                        size_t(to.cols) * bytes, size_t(to.rows));
    return;
  }
  const bool flat = from.contiguous() && to.contiguous();
  from = flattened(from, flat);
  to = flattened(to, flat);
  const bool narrows = from.dtype == DType::f32 && to.dtype == DType::bf16;
  TROUPE_CHECK(narrows || (from.dtype == DType::bf16 && to.dtype == DType::f32), "{} to {}",
               to_string(from.dtype), to_string(to.dtype));
  with_width(all_take_vectors(from, to), [&](auto width) {
    const int64_t blocks = device::ElementTile<width()>::blocks({to.rows, to.cols});
    if (narrows)
      launch(convert_kernel<float, uint16_t, width()>(from, to), blocks, "convert");
    else
      launch(convert_kernel<uint16_t, float, width()>(from, to), blocks, "convert");
  });
}

void CudaStream::add(ConstView x, View y) {
  check_same_shape(x, y);
  TROUPE_CHECK(x.dtype == DType::f32 && y.dtype == DType::f32);
  const bool flat = x.contiguous() && y.contiguous();
  x = flattened(x, flat);
  y = flattened(y, flat);
  with_width(all_take_vectors(x, y), [&](auto width) {
    device::Add<width()> kernel;
    kernel.shape = {y.rows, y.cols};
    kernel.x = rows_of<float>(x);
    kernel.y = rows_of<float>(y);
    launch(kernel, kernel.blocks(kernel.shape), "add");
  });
}

void CudaStream::fill_zero(View y) {
  if (y.size() == 0) return;
  const size_t bytes = size_of(y.dtype);
  runtime_->zero_rows(y.data, size_t(y.stride) * bytes, size_t(y.cols) * bytes, size_t(y.rows));
}

}  // namespace troupe::kernels
