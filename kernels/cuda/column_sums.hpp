// CudaStream::column_sums, for the operations that need them.
#pragma once

#include "kernels/cuda/device/column_sums.hpp"
#include "kernels/cuda/dispatch.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

template <typename Source>
void CudaStream::column_sums(const Source& source, int64_t rows, int64_t cols, bool vectors, View first,
                             View second) {
  if (rows == 0) {
    fill_zero(first);
    if (!second.empty()) fill_zero(second);
    return;
  }
  Scratch::Frame frame(scratch_);
  device::ColumnTotals totals;
  totals.runs = device::row_runs(rows);
  totals.cols = cols;
  totals.sums = Source::kSums;
  float* partial = frame.take<float>(totals.runs * Source::kSums * cols);
  with_width(vectors, [&](auto width) {
    device::ColumnRuns<Source, width()> runs;
    runs.rows = rows;
    runs.cols = cols;
    runs.source = source;
    runs.partial = partial;
    launch(runs, runs.blocks(rows, cols), "column sums");
  });
  totals.partial = partial;
  totals.out[0] = first.as<float>();
  totals.out[1] = second.empty() ? nullptr : second.as<float>();
  launch(totals, totals.blocks(cols * Source::kSums), "column sums");
}

}  // namespace troupe::kernels
