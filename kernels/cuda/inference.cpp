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

void CudaStream::gather_rows(ConstView table, std::span<const int32_t> rows, View out) {
  TROUPE_CHECK(table.dtype == out.dtype && table.cols == out.cols && out.rows == int64_t(rows.size()));
  for (const int32_t row : rows) TROUPE_CHECK(row >= 0 && row < table.rows, "row {} of {}", row, table.rows);
  Scratch::Frame frame(scratch_);
  const int32_t* placed = place(rows, frame);
  const auto gather = [&](auto kernel, auto element) {
    using T = decltype(element);
    kernel.shape = {out.rows, out.cols};
    kernel.table = rows_of<T>(table);
    kernel.rows = placed;
    kernel.out = rows_of<T>(out);
    launch(kernel, kernel.blocks(kernel.shape), "gather rows");
  };
  const bool vectors = all_take_vectors(table, out);
  TROUPE_CHECK(size_of(out.dtype) == 4 || size_of(out.dtype) == 2, "rows of {}", to_string(out.dtype));
  if (size_of(out.dtype) == 4)
    vectors ? gather(device::GatherRows<uint32_t, 4>(), uint32_t{})
            : gather(device::GatherRows<uint32_t, 1>(), uint32_t{});
  else
    vectors ? gather(device::GatherRows<uint16_t, 8>(), uint16_t{})
            : gather(device::GatherRows<uint16_t, 1>(), uint16_t{});
}

}  // namespace troupe::kernels
