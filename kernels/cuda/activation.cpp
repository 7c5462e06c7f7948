#include "kernels/cuda/device/activation.hpp"

#include "kernels/cuda/dispatch.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

void CudaStream::activation_forward(Activation kind, ConstView x, Dropout dropout, View y) {
  check_same_shape(x, y);
  TROUPE_CHECK(x.dtype == y.dtype);
  const bool flat = x.contiguous() && y.contiguous();
  x = flattened(x, flat);
  y = flattened(y, flat);
  with_compute_type(x.dtype, [&](auto type) {
    with_width(all_take_vectors(x, y), [&](auto width) {
      using T = decltype(type);
      device::ActivationForward<T, width()> kernel;
      kernel.shape = {x.rows, x.cols};
      kernel.is_gelu = kind == Activation::gelu;
      kernel.rule = rule_of(dropout);
      kernel.x = rows_of<T>(x);
      kernel.y = rows_of<T>(y);
      launch(kernel, kernel.blocks(kernel.shape), "activation");
    });
  });
}

void CudaStream::activation_backward(Activation kind, ConstView x, Dropout dropout, ConstView dy, View dx) {
  check_same_shape(x, dy);
  check_same_shape(x, dx);
  TROUPE_CHECK(x.dtype == dy.dtype && x.dtype == dx.dtype);
  const bool flat = x.contiguous() && dy.contiguous() && dx.contiguous();
  x = flattened(x, flat);
  dy = flattened(dy, flat);
  dx = flattened(dx, flat);
  with_compute_type(x.dtype, [&](auto type) {
    with_width(all_take_vectors(x, dy, dx), [&](auto width) {
      using T = decltype(type);
      device::ActivationBackward<T, width()> kernel;
      kernel.shape = {x.rows, x.cols};
      kernel.is_gelu = kind == Activation::gelu;
      kernel.rule = rule_of(dropout);
      kernel.x = rows_of<T>(x);
      kernel.dy = rows_of<T>(dy);
      kernel.dx = rows_of<T>(dx);
      launch(kernel, kernel.blocks(kernel.shape), "activation backward");
    });
  });
}

}  // namespace troupe::kernels
