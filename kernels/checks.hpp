// What every backend checks of an operation's arguments before it begins: breaches of kernels/backend.hpp's
// conventions are CheckFailures. Rows of the host only, no device is asked.
#pragma once

#include <span>

#include "kernels/backend.hpp"
#include "kernels/base/error.hpp"

namespace troupe::kernels {

// An empty view has any shape.
inline void check_shape(ConstView view, int64_t rows, int64_t cols, DType dtype, const char* name) {
  if (view.empty()) return;
  TROUPE_CHECK(view.rows == rows && view.cols == cols && view.dtype == dtype,
               "{}: {} x {} {}, not {} x {} {}", name, view.rows, view.cols, to_string(view.dtype), rows,
               cols, to_string(dtype));
}

// Of two views that may be empty, the compute type.
inline DType compute_type(ConstView a, ConstView b) {
  return !a.empty() ? a.dtype : !b.empty() ? b.dtype : DType::f32;
}

inline void check_norm(const ResidualNorm& args) {
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
  const bool centres = !args.gamma.empty() && args.kind == NormKind::layer;
  TROUPE_CHECK(args.beta.empty() == !centres, "beta belongs to layer norm");
  TROUPE_CHECK(args.mean.empty() || args.kind == NormKind::layer, "RMS norm has no mean");
  TROUPE_CHECK(args.y.empty() || !args.sum.empty(), "x + y needs a place: sum");
}

// Rows and columns are those of dsum or, where it is empty, of dy.
inline void check_norm_gradient(const ResidualNormGrad& args, int64_t rows, int64_t cols) {
  const DType type = compute_type(args.dnormed, args.dy);
  check_shape(args.dnormed, rows, cols, type, "dnormed");
  check_shape(args.dnormed_f32, rows, cols, DType::f32, "dnormed_f32");
  check_shape(args.dsum_in, rows, cols, DType::f32, "dsum_in");
  check_shape(args.gamma, 1, cols, DType::f32, "gamma");
  check_shape(args.dsum, rows, cols, DType::f32, "dsum");
  check_shape(args.dy, rows, cols, type, "dy");
  if (args.gamma.empty()) return;
  const bool centres = args.kind == NormKind::layer;
  TROUPE_CHECK(rows == 0 || (!args.sum.empty() && !args.rstd.empty()), "sum and rstd are needed");
  TROUPE_CHECK(rows == 0 || args.mean.empty() == !centres, "layer norm needs its mean, RMS norm has none");
  TROUPE_CHECK(!args.dgamma.empty(), "dgamma needs a place");
  TROUPE_CHECK(args.dbeta.empty() == !centres, "layer norm's dbeta needs a place, RMS norm has none");
  check_shape(args.sum, rows, cols, DType::f32, "sum");
  check_shape(args.mean, 1, rows, DType::f32, "mean");
  check_shape(args.rstd, 1, rows, DType::f32, "rstd");
  check_shape(args.dgamma, 1, cols, DType::f32, "dgamma");
  check_shape(args.dbeta, 1, cols, DType::f32, "dbeta");
}

inline void check_rotation(ConstView x, ConstView turns) {
  TROUPE_CHECK(turns.dtype == DType::f32 && turns.rows > 0 && turns.cols > 0 && turns.cols % 2 == 0,
               "turns: {} x {} {}", turns.rows, turns.cols, to_string(turns.dtype));
  TROUPE_CHECK(x.cols % turns.cols == 0, "{} columns in heads of {}", x.cols, turns.cols);
  TROUPE_CHECK(x.dtype == DType::f32 || x.dtype == DType::bf16, "a compute type, not {}", to_string(x.dtype));
}

inline void check_cross_entropy(const CrossEntropy& args) {
  TROUPE_CHECK(args.x.dtype == args.weight.dtype && args.x.cols == args.weight.k);
  TROUPE_CHECK(args.smoothing >= 0 && args.smoothing < 1, "smoothing {}", args.smoothing);
  TROUPE_CHECK(args.dx.empty() ||
               (args.dx.dtype == args.x.dtype && args.dx.rows == args.x.rows && args.dx.cols == args.x.cols));
  for (int64_t r = 0; r < args.x.rows; ++r)
    TROUPE_CHECK(args.targets[r] < args.weight.n, "target {} of row {} in a vocabulary of {}",
                 args.targets[r], r, args.weight.n);
}

inline void check_total(const BlockLayout& layout, const RoundedTotal& total) {
  TROUPE_CHECK(
      int64_t(total.mantissa.size()) == layout.elements() && int64_t(total.shift.size()) == layout.blocks(),
      "the rounded total has not been resized to the layout");
}

inline void check_embedding(std::span<const int32_t> ids, ConstView table, ConstView positions,
                            ConstView out) {
  TROUPE_CHECK(out.rows == int64_t(ids.size()) && out.dtype == DType::f32);
  TROUPE_CHECK(table.cols == out.cols && table.dtype == DType::f32);
  TROUPE_CHECK(positions.empty() ||
               (positions.cols == out.cols && positions.rows > 0 && positions.dtype == DType::f32));
  for (const int32_t id : ids) TROUPE_CHECK(id >= 0 && id < table.rows, "token {} of {}", id, table.rows);
}

}  // namespace troupe::kernels
