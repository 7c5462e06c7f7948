#include "kernels/cpu/loops/norm.hpp"

#include <algorithm>

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
                           norm ? args.mean.as<float>()[row] : 0,
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
  const int64_t rows = args.x.rows, cols = args.x.cols;
  const DType type = compute_type(args.y, args.normed);
  check_shape(args.x, rows, cols, DType::f32, "x");
  check_shape(args.y, rows, cols, type, "y");
  check_shape(args.gamma, 1, cols, DType::f32, "gamma");
  check_shape(args.beta, 1, cols, DType::f32, "beta");
  check_shape(args.sum, rows, cols, DType::f32, "sum");
  check_shape(args.normed, rows, cols, type, "normed");
  check_shape(args.normed_f32, rows, cols, DType::f32, "normed_f32");
  check_shape(args.mean, 1, rows, DType::f32, "mean");
  check_shape(args.rstd, 1, rows, DType::f32, "rstd");
  TROUPE_CHECK(args.gamma.empty() == args.beta.empty());
  TROUPE_CHECK(args.y.empty() || !args.sum.empty(), "x + y needs a place: sum");
  if (rows == 0 || cols == 0) return;
  if (type == DType::bf16)
    forward<uint16_t>(args, loops_.norm->forward_bf16);
  else
    forward<float>(args, loops_.norm->forward_f32);
}

void CpuStream::residual_norm_backward(const ResidualNormGrad& args) {
  const ConstView shape = !args.dsum.empty() ? ConstView(args.dsum) : ConstView(args.dy);
  const int64_t rows = shape.rows, cols = shape.cols;
  const DType type = compute_type(args.dnormed, args.dy);
  check_shape(args.dnormed, rows, cols, type, "dnormed");
  check_shape(args.dnormed_f32, rows, cols, DType::f32, "dnormed_f32");
  check_shape(args.dsum_in, rows, cols, DType::f32, "dsum_in");
  check_shape(args.gamma, 1, cols, DType::f32, "gamma");
  check_shape(args.dsum, rows, cols, DType::f32, "dsum");
  check_shape(args.dy, rows, cols, type, "dy");
  if (!args.gamma.empty()) {
    TROUPE_CHECK(rows == 0 || (!args.sum.empty() && !args.mean.empty() && !args.rstd.empty()),
                 "sum, mean and rstd are needed");
    TROUPE_CHECK(!args.dgamma.empty() && !args.dbeta.empty(), "dgamma and dbeta need a place");
    check_shape(args.sum, rows, cols, DType::f32, "sum");
    check_shape(args.mean, 1, rows, DType::f32, "mean");
    check_shape(args.rstd, 1, rows, DType::f32, "rstd");
    check_shape(args.dgamma, 1, cols, DType::f32, "dgamma");
    check_shape(args.dbeta, 1, cols, DType::f32, "dbeta");
    std::fill_n(args.dgamma.as<float>(), cols, 0.0f);
    std::fill_n(args.dbeta.as<float>(), cols, 0.0f);
  }
  if (rows == 0 || cols == 0) return;
  if (type == DType::bf16)
    backward<uint16_t>(args, rows, cols, loops_.norm->backward_bf16);
  else
    backward<float>(args, rows, cols, loops_.norm->backward_f32);
}

}  // namespace troupe::kernels
