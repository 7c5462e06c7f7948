// Random operands for measuring a backend's operations.
#pragma once

#include <memory>
#include <vector>

#include "kernels/base/random.hpp"
#include "kernels/cpu/backend.hpp"

namespace troupe::bench {

// The CPU, a stream of it and what was asked for, which lives as long as this. One thread.
class Matrices {
 public:
  Matrices() : backend_(kernels::make_cpu_backend()), stream_(backend_->create_stream()) {}
  kernels::Stream& stream() { return *stream_; }

  // (rows, cols) of numbers in [-1, 1).
  kernels::View matrix(kernels::DType dtype, int64_t rows, int64_t cols) {
    buffers_.push_back(backend_->allocate(size_t(rows * cols) * kernels::size_of(dtype)));
    std::vector<float> values(size_t(rows * cols), 0.0f);
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = float(mix64(i, buffers_.size()) >> 40) * 0x1p-23f - 1.0f;
    const kernels::View to{buffers_.back().data(), dtype, rows, cols, cols};
    stream_->convert(kernels::view_of(values.data(), rows, cols), to);
    return to;
  }
  kernels::PackedWeight weight(kernels::PackedType type, int64_t n, int64_t k) {
    const kernels::View master = matrix(kernels::DType::f32, n, k);
    buffers_.push_back(backend_->allocate(stream_->packed_bytes(n, k, type)));
    return stream_->pack(master, type, buffers_.back().data());
  }

 private:
  std::unique_ptr<kernels::Backend> backend_;
  std::unique_ptr<kernels::Stream> stream_;
  std::vector<kernels::Buffer> buffers_;
};

}  // namespace troupe::bench
