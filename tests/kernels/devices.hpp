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
// The emulated device in each order, unless TROUPE_TEST_GPU_ONLY is set, and the GPU if there is one (see
// gpu_test_device).
std::vector<std::unique_ptr<TestDevice>>& other_test_devices();
// In the order `forward`.
std::unique_ptr<TestDevice> emulated_test_device(const kernels::CudaLimits& limits);
// Null without CUDA or without a GPU.
std::unique_ptr<TestDevice> gpu_test_device();

// A matrix of f32 or bf16 on a device; rows lie `gap` elements apart, the first `gap` elements in, and a row
// more is there than is used: what lies around the elements must stay as it was.
class Placed {
 public:
  Placed(TestDevice& device, kernels::DType dtype, int64_t rows, int64_t cols, int64_t gap = 0)
      : Placed(device, dtype, Matrix(rows, cols, 77.0f), gap) {}
  Placed(TestDevice& device, kernels::DType dtype, const Matrix& values, int64_t gap = 0)
      : device_(device), shape_{nullptr, dtype, values.rows, values.cols, values.cols + gap}, gap_(gap) {
    std::vector<char> bytes(at(shape_.rows + 1) + 64, kAround);
    const Strided host(dtype, values, gap);
    for (int64_t row = 0; row < shape_.rows; ++row)
      std::memcpy(bytes.data() + at(row), host.view().row_range(row, 1).data, row_bytes());
    memory_ = device.allocate(bytes.size());
    device.copy_in(memory_.data(), bytes.data(), bytes.size());
  }
  kernels::View view() const {
    kernels::View view = shape_;
    view.data = static_cast<char*>(memory_.data()) + at(0);
    return view;
  }
  Matrix values() const {
    std::vector<char> bytes(memory_.bytes());
    device_.copy_out(bytes.data(), memory_.data(), bytes.size());
    const Strided host(shape_.dtype, shape_.rows, shape_.cols, gap_);
    for (int64_t row = 0; row < shape_.rows; ++row) {
      std::memcpy(host.view().row_range(row, 1).data, bytes.data() + at(row), row_bytes());
      std::memset(bytes.data() + at(row), kAround, row_bytes());
    }
    CHECK(std::ranges::count(bytes, kAround) == int64_t(bytes.size()));  // nothing around was written
    return host.values();
  }

 private:
  static constexpr char kAround = 0x55;
  size_t at(int64_t row) const { return size_t(gap_ + row * shape_.stride) * kernels::size_of(shape_.dtype); }
  size_t row_bytes() const { return size_t(shape_.cols) * kernels::size_of(shape_.dtype); }

  TestDevice& device_;
  kernels::View shape_;  // without its data
  int64_t gap_;
  kernels::Buffer memory_;
};

// A PackedWeight on a device, with its memory.
struct PlacedWeight {
  PlacedWeight(TestDevice& device, const Matrix& w, kernels::PackedType type)
      : master(device, kernels::DType::f32, w),
        memory(device.allocate(device.stream().packed_bytes(w.rows, w.cols, type))),
        weight(device.stream().pack(master.view(), type, memory.data())) {}
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
