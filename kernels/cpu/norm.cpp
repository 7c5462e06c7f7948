#include "kernels/cpu/loops/norm.hpp"

#include "kernels/checks.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

// Row `row` of a view, or null when the view is empty.
template <typename T, typename AnyView>
auto* row_of(const AnyView& view, int64_t row) {
  using Pointer = decltype(view.template as<T>());
  return view.empty() ? Pointer{} : view.template as<T>() + row * view.stride;
}

template <typename T>
void forward(const ResidualNorm& args, void (*run)(const NormRow<T>*)) {
  const DropoutMask mask = mask_of(args.dropout);
  const int64_t cols = args.x.cols;
  for (int64_t row = 0; row < args.x.rows; ++row) {
    const NormRow<T> a{cols,
                       row_of<float>(args.x, row),
                       row_of<T>(args.y, row),
                       mask,
                       uint64_t(row * cols),
                       row_of<float>(args.gamma, 0),
                       row_of<float>(args.beta, 0),
                       row_of<float>(args.sum, row),
                       row_of<T>(args.normed, row),
                       row_of<float>(args.normed_f32, row),
                       args.mean.empty() ? nullptr : args.mean.as<float>() + row,
                       args.rstd.empty() ? nullptr : args.rstd.as<float>() + row};
    run(&a);
  }
}

template <typename T>
void backward(const ResidualNormGrad& args, int64_t rows, int64_t cols, void (*run)(const NormGradRow<T>*)) {
  const DropoutMask mask = mask_of(args.dropout);
  const bool norm = !args.gamma.empty();
  for (int64_t row = 0; row < rows; ++row) {
    const NormGradRow<T> a{cols,
                           row_of<T>(args.dnormed, row),
                           row_of<float>(args.dnormed_f32, row),
                           row_of<float>(args.dsum_in, row),
                           norm ? row_of<float>(args.sum, row) : nullptr,
                           row_of<float>(args.gamma, 0),
                           args.mean.empty() ? 0 : args.mean.as<float>()[row],
                           norm ? args.rstd.as<float>()[row] : 0,
                           mask,
                           uint64_t(row * cols),
                           row_of<float>(args.dsum, row),
                           row_of<T>(args.dy, row),
                           row_of<float>(args.dgamma, 0),
                           row_of<float>(args.dbeta, 0)};
    run(&a);
  }
}

}  // namespace

void CpuStream::residual_norm_forward(const ResidualNorm& args) {
  check_norm(args);
  if (args.x.rows == 0 || args.x.cols == 0) return;
  if (compute_type(args.y, args.normed) == DType::bf16)
    forward<uint16_t>(args, loops_.norm->forward_bf16);
  else
    forward<float>(args, loops_.norm->forward_f32);
}

void CpuStream::residual_norm_backward(const ResidualNormGrad& args) {
  const ConstView shape = !args.dsum.empty() ? ConstView(args.dsum) : ConstView(args.dy);
  const int64_t rows = shape.rows, cols = shape.cols;
  check_norm_gradient(args, rows, cols);
  if (!args.gamma.empty()) fill_zero(args.dgamma);
  if (!args.gamma.empty() && !args.dbeta.empty()) fill_zero(args.dbeta);
  if (rows == 0 || cols == 0) return;
  if (compute_type(args.dnormed, args.dy) == DType::bf16)
    backward<uint16_t>(args, rows, cols, loops_.norm->backward_bf16);
  else
    backward<float>(args, rows, cols, loops_.norm->backward_f32);
}

}  // namespace troupe::kernels
