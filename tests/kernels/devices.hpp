// One table for every device: a case is a function of a TestDevice that returns matrices, run on the CPU, on
// the emulated device in three orders of its threads (whose results must be the same bits: a difference is a
// race) and, where the program has CUDA and the machine a GPU, there too. Devices are held against the CPU.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "kernels/cuda/accumulator.hpp"
#include "kernels/cuda/emulated.hpp"
#include "tests/kernels/levels.hpp"

namespace troupe::testing {

class TestDevice {
 public:
  virtual ~TestDevice() = default;
  virtual std::string name() const = 0;
  virtual kernels::Stream& stream() = 0;
  virtual kernels::CudaStream* cuda() { return nullptr; }  // null on the CPU
  virtual kernels::Buffer allocate(size_t bytes) = 0;
  virtual void copy_in(void* to, const void* from, size_t bytes) = 0;
  virtual void copy_out(void* to, const void* from, size_t bytes) = 0;  // waits
};

std::unique_ptr<TestDevice> cpu_test_device();
// The emulated device in each order, and the GPU if there is one (see gpu_test_device).
std::vector<std::unique_ptr<TestDevice>>& other_test_devices();
// Null without CUDA or without a GPU.
std::unique_ptr<TestDevice> gpu_test_device();

// A matrix of f32 or bf16 on a device; rows lie `gap` elements apart, the first `gap` elements in.
class Placed {
 public:
  Placed(TestDevice& device, kernels::DType dtype, int64_t rows, int64_t cols, int64_t gap = 0)
      : Placed(device, dtype, Matrix(rows, cols, 77.0f), gap) {}
  Placed(TestDevice& device, kernels::DType dtype, const Matrix& values, int64_t gap = 0)
      : device_(device),
        dtype_(dtype),
        rows_(values.rows),
        cols_(values.cols),
        gap_(gap),
        memory_(device.allocate(bytes())) {
    const Strided host(dtype, values, gap);
    if (size() > 0) device.copy_in(start(), host.view().data, size());
  }
  kernels::View view() const { return {start(), dtype_, rows_, cols_, cols_ + gap_}; }
  Matrix values() const {
    const Strided host(dtype_, rows_, cols_, gap_);
    if (size() > 0) device_.copy_out(host.view().data, start(), size());
    return host.values();
  }

 private:
  size_t size() const {
    return rows_ * cols_ == 0 ? 0 : size_t((rows_ - 1) * (cols_ + gap_) + cols_) * kernels::size_of(dtype_);
  }
  size_t bytes() const { return size_t((rows_ + 1) * (cols_ + gap_) + 1) * kernels::size_of(dtype_); }
  char* start() const { return static_cast<char*>(memory_.data()) + size_t(gap_) * kernels::size_of(dtype_); }

  TestDevice& device_;
  kernels::DType dtype_;
  int64_t rows_, cols_, gap_;
  kernels::Buffer memory_;
};

// A PackedWeight on a device, with its memory.
struct PlacedWeight {
  PlacedWeight(TestDevice& device, const Matrix& w, kernels::DType dtype)
      : master(device, kernels::DType::f32, w),
        memory(device.allocate(device.stream().packed_bytes(w.rows, w.cols, dtype))),
        weight(device.stream().pack(master.view(), dtype, memory.data())) {}
  Placed master;
  kernels::Buffer memory;
  kernels::PackedWeight weight;
};

// Adds gradients of any device into a flat host array.
class HostSink final : public kernels::GradientSink {
 public:
  HostSink(TestDevice& device, int64_t rows, int64_t cols) : sums(rows, cols), device_(device) {}
  void fold(int64_t offset, kernels::ConstView gradient) override {
    REQUIRE(gradient.contiguous());
    REQUIRE(offset + gradient.size() <= int64_t(sums.values.size()));
    std::vector<float> values(size_t(gradient.size()));
    if (!values.empty()) device_.copy_out(values.data(), gradient.data, values.size() * sizeof(float));
    for (size_t i = 0; i < values.size(); ++i) sums.values[size_t(offset) + i] += values[i];
  }
  Matrix sums;

 private:
  TestDevice& device_;
};

using Results = std::vector<Matrix>;
using DeviceCase = std::function<Results(TestDevice&)>;

inline bool same_bits(const Matrix& a, const Matrix& b) {
  return a.values.size() == b.values.size() &&
         (a.values.empty() ||
          std::memcmp(a.values.data(), b.values.data(), a.values.size() * sizeof(float)) == 0);
}

constexpr double kSameBits = 0;

// Runs the case everywhere and holds result i against the CPU's within tolerances[i], or the last one:
// relative to the largest magnitude, or kSameBits. Bits of operations with exp or tanh need a CPU with fused
// multiply-add.
inline void check_devices(const DeviceCase& run, const std::vector<double>& tolerances) {
  const auto cpu = cpu_test_device();
  const Results expected = run(*cpu);
  const Results* first = nullptr;
  std::vector<Results> kept;
  kept.reserve(other_test_devices().size());
  for (const auto& device : other_test_devices()) {
    CAPTURE(device->name());
    kept.push_back(run(*device));
    const Results& results = kept.back();
    REQUIRE(results.size() == expected.size());
    for (size_t i = 0; i < results.size(); ++i) {
      CAPTURE(i);
      const double tolerance = tolerances[std::min(i, tolerances.size() - 1)];
      if (tolerance == kSameBits)
        CHECK(same_bits(results[i], expected[i]));
      else
        CHECK(distance(results[i], expected[i]) <= tolerance);
      if (first != nullptr && device->name().starts_with("emulated"))
        CHECK(same_bits(results[i], (*first)[i]));
    }
    if (first == nullptr) first = &results;
  }
}

}  // namespace troupe::testing
