#include "kernels/cpu/loops/inference.hpp"

#include <cstring>

#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

void CpuStream::log_softmax_topk(ConstView logits, int64_t k, View values, View ids) {
  TROUPE_CHECK(logits.dtype == DType::f32 && values.dtype == DType::f32 && ids.dtype == DType::i32);
  TROUPE_CHECK(k >= 1 && k <= logits.cols, "the {} largest of {}", k, logits.cols);
  TROUPE_CHECK(values.rows == logits.rows && values.cols == k && ids.rows == logits.rows && ids.cols == k);
  for (int64_t row = 0; row < logits.rows; ++row)
    loops_.inference->log_softmax_topk(logits.as<float>() + row * logits.stride, logits.cols, k,
                                       values.as<float>() + row * values.stride,
                                       ids.as<int32_t>() + row * ids.stride);
}

void CpuStream::gather_rows(ConstView table, std::span<const int32_t> rows, View out) {
  TROUPE_CHECK(table.dtype == out.dtype && table.cols == out.cols && out.rows == int64_t(rows.size()));
  const size_t row_bytes = size_t(table.cols) * size_of(table.dtype);
  for (int64_t i = 0; i < out.rows; ++i)
    std::memcpy(out.row_range(i, 1).data, table.row_range(rows[size_t(i)], 1).data, row_bytes);
}

}  // namespace troupe::kernels
