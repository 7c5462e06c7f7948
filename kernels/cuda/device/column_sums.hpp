// Sums over the rows of a matrix, column by column, in two kernels without atomics: first each block adds a
// run of rows in order, then each column adds its runs in order. The runs depend on the number of rows alone.
#pragma once

#include "kernels/cuda/device/portable.hpp"

namespace troupe::kernels::device {

constexpr int64_t kRunRowsMin = 32;
constexpr int64_t kRunsMax = 128;
constexpr int64_t run_rows(int64_t rows) {
  const int64_t rows_a_run = ceil_div(rows, kRunsMax);
  return rows_a_run < kRunRowsMin ? kRunRowsMin : rows_a_run;
}
constexpr int64_t row_runs(int64_t rows) {
  return ceil_div(rows, run_rows(rows));
}

// Source::add(row, col, sums) adds the values of N columns of one row to kSums running sums. `partial` is
// (runs, kSums, cols).
template <typename Source, int N>
struct ColumnRuns {
  static constexpr int kThreads = 128;
  static constexpr int64_t kCols = int64_t{kThreads} * N;
  using Shared = NoShared;
  using Registers = NoRegisters;

  int64_t rows = 0, cols = 0;  // cols is a multiple of N
  Source source;
  float* partial = nullptr;

  static int64_t blocks(int64_t rows, int64_t cols) { return row_runs(rows) * ceil_div(cols, kCols); }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const int64_t tiles = ceil_div(cols, kCols), run = block.index() / tiles;
    const int64_t begin = run * run_rows(rows), end = smaller(rows, begin + run_rows(rows));
    block.each([&](int thread, NoRegisters&) {
      const int64_t col = block.index() % tiles * kCols + int64_t{thread} * N;
      if (col >= cols) return;
      float sums[Source::kSums][N] = {};
      for (int64_t row = begin; row < end; ++row) source.add(row, col, sums);
      TROUPE_UNROLL for (int s = 0; s < Source::kSums; ++s)
          store(partial + (run * Source::kSums + s) * cols + col, sums[s]);
    });
  }
};

// out (values) = sum over runs of partial (runs, values), with values = kSums * cols.
struct ColumnTotals {
  static constexpr int kThreads = 256;
  using Shared = NoShared;
  using Registers = NoRegisters;

  int64_t runs = 0, cols = 0;
  int sums = 1;
  const float* partial = nullptr;
  float* out[2] = {nullptr, nullptr};  // one for each sum; null: that one is not wanted

  static int64_t blocks(int64_t values) { return ceil_div(values, kThreads); }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    block.each([&](int thread, NoRegisters&) {
      const int64_t value = block.index() * kThreads + thread, values = cols * sums;
      if (value >= values) return;
      float* to = value < cols ? out[0] : out[1];
      if (to == nullptr) return;
      float total = 0;
      for (int64_t run = 0; run < runs; ++run) total += partial[run * values + value];
      to[value < cols ? value : value - cols] = total;
    });
  }
};

// The matrix itself.
template <typename T>
struct PlainColumns {
  static constexpr int kSums = 1;
  Rows<const T> x;

  template <int N>
  TROUPE_DEVICE void add(int64_t row, int64_t col, float (&sums)[kSums][N]) const {
    float v[N];
    load(x.row(row) + col, v);
    TROUPE_UNROLL for (int i = 0; i < N; ++i) sums[0][i] += v[i];
  }
};

}  // namespace troupe::kernels::device
