#include "kernels/cuda/device/norm.hpp"

#include "kernels/checks.hpp"
#include "kernels/cuda/column_sums.hpp"

namespace troupe::kernels {

namespace {

template <typename Pointer>
auto* floats_of(const BasicView<Pointer>& view) {
  return view.empty() ? nullptr : view.template as<float>();
}

template <typename T, int N>
device::NormBackward<T, N> backward_kernel(const ResidualNormGrad& args, int64_t rows, int64_t cols) {
  device::NormBackward<T, N> kernel;
  kernel.rows = rows;
  kernel.cols = cols;
  kernel.rule = rule_of(args.dropout);
  kernel.gradient = {rows_of<T>(args.dnormed), rows_of<float>(args.dnormed_f32)};
  kernel.dsum_in = rows_of<float>(args.dsum_in);
  kernel.sum = rows_of<float>(args.sum);
  kernel.gamma = floats_of(args.gamma);
  kernel.mean = floats_of(args.mean);
  kernel.rstd = floats_of(args.rstd);
  kernel.dsum = rows_of<float>(args.dsum);
  kernel.dy = rows_of<T>(args.dy);
  return kernel;
}

}  // namespace

void CudaStream::residual_norm_forward(const ResidualNorm& args) {
  const int64_t rows = args.x.rows, cols = args.x.cols;
  const DType type = compute_type(args.y, args.normed);
  check_norm(args);
  const device::DropoutRule rule = rule_of(args.dropout);
  if (rows == 0 || cols == 0) return;
  const bool vectors =
      all_take_vectors(args.x, args.y, args.gamma, args.beta, args.sum, args.normed, args.normed_f32);
  with_compute_type(type, [&](auto element) {
    with_width(vectors, [&](auto width) {
      using T = decltype(element);
      device::NormForward<T, width()> kernel;
      kernel.rows = rows;
      kernel.cols = cols;
      kernel.rule = rule;
      kernel.x = rows_of<float>(args.x);
      kernel.y = rows_of<T>(args.y);
      kernel.gamma = floats_of(args.gamma);
      kernel.beta = floats_of(args.beta);
      kernel.sum = rows_of<float>(args.sum);
      kernel.normed = rows_of<T>(args.normed);
      kernel.normed_f32 = rows_of<float>(args.normed_f32);
      kernel.mean = floats_of(args.mean);
      kernel.rstd = floats_of(args.rstd);
      launch(kernel, kernel.blocks(rows), "residual and norm");
    });
  });
}

void CudaStream::residual_norm_backward(const ResidualNormGrad& args) {
  const ConstView shape = !args.dsum.empty() ? ConstView(args.dsum) : ConstView(args.dy);
  const int64_t rows = shape.rows, cols = shape.cols;
  const DType type = compute_type(args.dnormed, args.dy);
  check_norm_gradient(args, rows, cols);
  if (cols == 0) return;
  const bool norm_takes = all_take_vectors(args.dnormed, args.dnormed_f32, args.sum);
  with_compute_type(type, [&](auto element) {
    using T = decltype(element);
    if (!args.gamma.empty()) {  // first: dsum may overwrite what the other kernel reads
      device::NormColumns<T> columns;
      columns.gradient = {rows_of<T>(args.dnormed), rows_of<float>(args.dnormed_f32)};
      columns.sum = rows_of<float>(args.sum);
      columns.mean = floats_of(args.mean);
      columns.rstd = floats_of(args.rstd);
      column_sums(columns, rows, cols, norm_takes && cols % device::kVector == 0, args.dgamma, args.dbeta);
    }
    if (rows == 0) return;
    const bool vectors = norm_takes && all_take_vectors(args.dsum_in, args.gamma, args.dsum, args.dy);
    with_width(vectors, [&](auto width) {
      launch(backward_kernel<T, width()>(args, rows, cols), device::NormTile<width()>::blocks(rows),
             "residual and norm backward");
    });
  });
}

}  // namespace troupe::kernels
