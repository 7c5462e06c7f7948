#include "kernels/cpu/loops/inference.hpp"

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

}  // namespace troupe::kernels
