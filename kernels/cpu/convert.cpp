#include "kernels/cpu/loops/convert.hpp"

#include <cstring>

#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

void CpuStream::convert(ConstView from, View to) {
  TROUPE_CHECK(from.rows == to.rows && from.cols == to.cols);
  const bool flat = from.contiguous() && to.contiguous();
  const int64_t rows = flat ? 1 : from.rows, cols = flat ? from.size() : from.cols;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * from.stride, to_at = row * to.stride;
    if (from.dtype == to.dtype) {
      const size_t bytes = size_of(from.dtype);
      std::memcpy(static_cast<char*>(to.data) + size_t(to_at) * bytes,
                  static_cast<const char*>(from.data) + size_t(at) * bytes, size_t(cols) * bytes);
    } else if (from.dtype == DType::f32 && to.dtype == DType::bf16) {
      loops_.convert->to_bf16(from.as<float>() + at, to.as<uint16_t>() + to_at, cols);
    } else {
      TROUPE_CHECK(from.dtype == DType::bf16 && to.dtype == DType::f32, "{} to {}", to_string(from.dtype),
                   to_string(to.dtype));
      loops_.convert->to_f32(from.as<uint16_t>() + at, to.as<float>() + to_at, cols);
    }
  }
}

void CpuStream::add(ConstView x, View y) {
  TROUPE_CHECK(x.rows == y.rows && x.cols == y.cols);
  TROUPE_CHECK(x.dtype == DType::f32 && y.dtype == DType::f32);
  const bool flat = x.contiguous() && y.contiguous();
  const int64_t rows = flat ? 1 : x.rows, cols = flat ? x.size() : x.cols;
  for (int64_t row = 0; row < rows; ++row)
    loops_.convert->add(x.as<float>() + row * x.stride, y.as<float>() + row * y.stride, cols);
}

void CpuStream::fill_zero(View y) {
  const size_t bytes = size_of(y.dtype);
  if (y.contiguous()) {
    std::memset(y.data, 0, size_t(y.size()) * bytes);
    return;
  }
  for (int64_t row = 0; row < y.rows; ++row) std::memset(y.row_range(row, 1).data, 0, size_t(y.cols) * bytes);
}

}  // namespace troupe::kernels
