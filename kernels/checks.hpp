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
