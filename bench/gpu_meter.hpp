// Times of what a GPU does, as medians between CUDA events, and rows of bench_gpu's table beside the card's
// own ceilings. One thread.
#pragma once

#include <algorithm>
#include <bit>
#include <functional>
#include <memory>
#include <vector>

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "kernels/base/random.hpp"
#include "kernels/cuda/backend.hpp"
#include "kernels/cuda/check.hpp"

namespace troupe::bench {

using namespace kernels;

struct GpuMeter {
  std::unique_ptr<CudaStream> stream = make_cuda_stream(0);
  double copy_gb_s = 0, bf16_tflop_s = 0;

  bool multiplies_fp8() const {
    try {
      stream->packed_bytes(16, 16, {DType::bf16, Packing::fp8});
      return true;
    } catch (const Error& none) {
      fmt::print("| fp8 products | {} | | |\n", none.what());
      return false;
    }
  }

  // Random values (a million of them over and over), so that neither zeros nor denormals flatter the clocks.
  Buffer random(DType dtype, int64_t count) {
    constexpr size_t kPeriod = size_t{1} << 20;
    std::vector<uint16_t> values(size_t(count) * size_of(dtype) / 2);
    const Philox philox = philox_from(3);
    for (size_t i = 0; i < values.size(); ++i) {
      if (i >= kPeriod) {
        values[i] = values[i - kPeriod];
        continue;
      }
      const uint32_t w = philox(i)[0];
      const float x = float(int32_t(w)) * 0x1p-31f;
      values[i] = uint16_t(std::bit_cast<uint32_t>(x) >> 16);  // also the upper half of an f32 of such size
      if (dtype == DType::f32 && i % 2 == 0) values[i] = uint16_t(w);
    }
    Buffer buffer = stream->runtime().allocate(values.size() * 2);
    stream->runtime().copy_in(buffer.data(), values.data(), values.size() * 2);
    return buffer;
  }

  // Median milliseconds of a call, after two to warm up.
  double time(const std::function<void()>& call, int repeats = 15) const {
    call();
    call();
    cudaEvent_t begin = nullptr, end = nullptr;
    check_cuda(cudaEventCreate(&begin), "cannot create an event");
    check_cuda(cudaEventCreate(&end), "cannot create an event");
    const auto queue = static_cast<cudaStream_t>(stream->runtime().native());
    std::vector<float> times;
    for (int i = 0; i < repeats; ++i) {
      check_cuda(cudaEventRecord(begin, queue), "cannot record an event");
      call();
      check_cuda(cudaEventRecord(end, queue), "cannot record an event");
      check_cuda(cudaEventSynchronize(end), "the measured work failed");
      check_cuda(cudaEventElapsedTime(&times.emplace_back(), begin, end), "cannot read an event");
    }
    check_cuda(cudaEventDestroy(begin), "cannot destroy an event");
    check_cuda(cudaEventDestroy(end), "cannot destroy an event");
    std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
    return double(times[size_t(repeats / 2)]);
  }
  void bytes_row(const char* name, double bytes, double ms) const {
    fmt::print("| {} | {:.3f} ms | {:.0f} GB/s | {:.0f} % of copying |\n", name, ms, bytes / ms * 1e-6,
               100 * bytes / ms * 1e-6 / copy_gb_s);
  }
  void flops_row(const char* name, double flops, double ms) const {
    fmt::print("| {} | {:.3f} ms | {:.1f} TFLOP/s | {:.0f} % of the bf16 product |\n", name, ms,
               flops / ms * 1e-9, 100 * flops / ms * 1e-9 / bf16_tflop_s);
  }
};

inline View matrix(const Buffer& buffer, DType dtype, int64_t rows, int64_t cols) {
  return {buffer.data(), dtype, rows, cols, cols};
}

class DropSink final : public GradientSink {  // consumes nothing: the price of folding is the difference
 public:
  void fold(int64_t, ConstView) override {}
  void fold_rows(int64_t, std::span<const int32_t>, ConstView) override {}
};

}  // namespace troupe::bench
