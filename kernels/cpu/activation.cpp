#include "kernels/cpu/loops/activation.hpp"

#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

void check_same_shape(ConstView a, ConstView b) {
  TROUPE_CHECK(a.rows == b.rows && a.cols == b.cols && a.dtype == b.dtype, "{} x {} {} and {} x {} {}",
               a.rows, a.cols, to_string(a.dtype), b.rows, b.cols, to_string(b.dtype));
}

// Calls run(row, first, count) for the rows, or once for all of them when they follow one another in memory.
template <typename Run>
void for_runs(ConstView x, bool flat, Run&& run) {
  if (x.size() == 0) return;
  if (flat) {
    run(0, uint64_t{0}, x.size());
    return;
  }
  for (int64_t row = 0; row < x.rows; ++row) run(row, uint64_t(row * x.cols), x.cols);
}

template <typename T>
void forward(typename ActivationLoopsOf<T>::Forward loop, ConstView x, const DropoutMask& mask, View y) {
  for_runs(x, x.contiguous() && y.contiguous(), [&](int64_t row, uint64_t first, int64_t count) {
    loop(x.as<T>() + row * x.stride, count, &mask, first, y.as<T>() + row * y.stride);
  });
}

template <typename T>
void backward(typename ActivationLoopsOf<T>::Backward loop, ConstView x, ConstView dy,
              const DropoutMask& mask, View dx) {
  for_runs(x, x.contiguous() && dy.contiguous() && dx.contiguous(),
           [&](int64_t row, uint64_t first, int64_t count) {
             loop(x.as<T>() + row * x.stride, dy.as<T>() + row * dy.stride, count, &mask, first,
                  dx.as<T>() + row * dx.stride);
           });
}

}  // namespace

void CpuStream::activation_forward(Activation kind, ConstView x, Dropout dropout, View y) {
  check_same_shape(x, y);
  const DropoutMask mask = mask_of(dropout);
  const ActivationLoops& loops = *loops_.activation;
  const bool relu = kind == Activation::relu;
  if (x.dtype == DType::bf16)
    forward<uint16_t>(relu ? loops.bf16.relu_forward : loops.bf16.gelu_forward, x, mask, y);
  else
    forward<float>(relu ? loops.f32.relu_forward : loops.f32.gelu_forward, x, mask, y);
}

void CpuStream::activation_backward(Activation kind, ConstView x, Dropout dropout, ConstView dy, View dx) {
  check_same_shape(x, dy);
  check_same_shape(x, dx);
  const DropoutMask mask = mask_of(dropout);
  const ActivationLoops& loops = *loops_.activation;
  const bool relu = kind == Activation::relu;
  if (x.dtype == DType::bf16)
    backward<uint16_t>(relu ? loops.bf16.relu_backward : loops.bf16.gelu_backward, x, dy, mask, dx);
  else
    backward<float>(relu ? loops.f32.relu_backward : loops.f32.gelu_backward, x, dy, mask, dx);
}

}  // namespace troupe::kernels
