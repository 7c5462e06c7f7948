#include "kernels/cuda/device/inference.hpp"

#include "kernels/cuda/dispatch.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

void CudaStream::log_softmax_topk(ConstView logits, int64_t k, View values, View ids) {
  TROUPE_CHECK(logits.dtype == DType::f32 && values.dtype == DType::f32 && ids.dtype == DType::i32);
  TROUPE_CHECK(k >= 1 && k <= logits.cols, "the {} largest of {}", k, logits.cols);
  TROUPE_CHECK(values.rows == logits.rows && values.cols == k && ids.rows == logits.rows && ids.cols == k);
  device::LogSoftmaxTopK kernel;
  kernel.cols = logits.cols;
  kernel.k = k;
  kernel.logits = rows_of<float>(logits);
  kernel.values = rows_of<float>(values);
  kernel.ids = rows_of<int32_t>(ids);
  launch(kernel, logits.rows, "log-softmax");
}

}  // namespace troupe::kernels
