#include "kernels/cuda/emulated.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include <xmmintrin.h>

#include "kernels/cpu/stream.hpp"
#include "kernels/cuda/device/activation.hpp"
#include "kernels/cuda/device/fp8.hpp"
#include "kernels/cuda/emulated_attention.hpp"

namespace troupe::kernels {

namespace {

// To 10 bits of mantissa; to nearest, and away from zero between two.
float round_to_tf32(float x) {
  if (!std::isfinite(x)) return x;
  return std::bit_cast<float>((std::bit_cast<uint32_t>(x) + 0x1000u) & ~0x1fffu);
}

// The element at (row, col) of op(factor), as it lies in memory column-major.
double element(const Product::Factor& f, bool tf32, int64_t row, int64_t col) {
  const int64_t at = f.transposed ? col + row * f.leading : row + col * f.leading;
  switch (f.dtype) {
    case DType::f32:
      return double(tf32 ? round_to_tf32(static_cast<const float*>(f.data)[at])
                         : static_cast<const float*>(f.data)[at]);
    case DType::bf16:
      return double(device::widen(static_cast<const uint16_t*>(f.data)[at]));
    case DType::e4m3:
      return double(device::decode<device::E4M3>(static_cast<const uint8_t*>(f.data)[at])) * double(*f.scale);
    case DType::e5m2:
      return double(device::decode<device::E5M2>(static_cast<const uint8_t*>(f.data)[at])) * double(*f.scale);
    default:
      throw error(ErrorKind::device, "there are no products of {}", to_string(f.dtype));
  }
}

float read(const void* data, DType dtype, int64_t at) {
  return dtype == DType::f32 ? static_cast<const float*>(data)[at]
                             : device::widen(static_cast<const uint16_t*>(data)[at]);
}
void write(void* data, DType dtype, int64_t at, float value) {
  if (dtype == DType::f32)
    static_cast<float*>(data)[at] = value;
  else
    static_cast<uint16_t*>(data)[at] = device::narrow<uint16_t>(value);
}

// The elements from one column to the next, and the address, are multiples of 16 bytes.
bool is_aligned(const void* data, int64_t leading, DType dtype) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && size_t(leading) * size_of(dtype) % 16 == 0;
}

// The element (m, n) of the result, from its sum.
float finished(const Product& p, int64_t m, int64_t n, float sum) {
  const int64_t at = m + n * p.pre_leading;
  switch (p.epilogue) {
    case Epilogue::gelu:
      write(p.pre, p.dtype, at, sum);
      return device::gelu(sum);
    case Epilogue::gelu_gradient:
      return sum * device::gelu_slope(read(p.pre, p.dtype, at));
    case Epilogue::none:
      break;
  }
  return sum;
}

void check_factor(const Product::Factor& f, int64_t rows, int64_t cols) {
  TROUPE_CHECK((f.transposed ? f.cols : f.rows) == rows && (f.transposed ? f.rows : f.cols) == cols);
  TROUPE_CHECK(f.leading >= f.rows && f.data != nullptr);
}

// What a device computes with, until the end of a scope: exceptions masked, to nearest, denormals are zero.
class FloatState {
 public:
  FloatState() : before_(_mm_getcsr()) { _mm_setcsr(kFloatState); }
  ~FloatState() { _mm_setcsr(before_); }
  FloatState(const FloatState&) = delete;
  FloatState& operator=(const FloatState&) = delete;

 private:
  unsigned before_;
};

class EmulatedRuntime final : public DeviceRuntime {
 public:
  EmulatedRuntime(ThreadOrder order, const DeviceMemory& memory, bool multiplies_fp8)
      : order_(order), memory_(memory), multiplies_fp8_(multiplies_fp8) {}

  Device device() const override { return {DeviceKind::cuda, -1}; }
  DeviceMemory memory() const override { return memory_; }
  void synchronize() override {}
  void* native() const override { return nullptr; }

  Buffer allocate(size_t bytes) override {
    Buffer buffer = allocate_host(bytes);
    std::memset(buffer.data(), 0xff, bytes);
    return buffer;
  }
  void copy_in(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void copy_out(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void start_copy_out(const void* from, size_t bytes) override {
    going_out_.assign(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
  }
  void finish_copy_out(void* to) override {
    std::memcpy(to, going_out_.data(), going_out_.size());
    going_out_.clear();
  }
  void copy_rows(void* to, size_t to_stride, const void* from, size_t from_stride, size_t bytes,
                 size_t rows) override {
    for (size_t row = 0; row < rows; ++row)
      std::memcpy(static_cast<char*>(to) + row * to_stride,
                  static_cast<const char*>(from) + row * from_stride, bytes);
  }
  void zero_rows(void* to, size_t stride, size_t bytes, size_t rows) override {
    for (size_t row = 0; row < rows; ++row) std::memset(static_cast<char*>(to) + row * stride, 0, bytes);
  }

  void set_mark(size_t) override {}  // all that was called before is done
  void wait_for_mark(size_t) override {}

  void launch(const KernelCall& call) override {
    const FloatState state;
    call.on_host(call.kernel, call.blocks, order_);
  }

  void multiply(const Product& p) override {
    const FloatState state;
    check_factor(p.a, p.m, p.k);
    check_factor(p.b, p.k, p.n);
    TROUPE_CHECK(p.leading >= p.m);
    TROUPE_CHECK(has_algorithm(p), "a product that the device has no algorithm for");
    TROUPE_CHECK(p.column_sums == nullptr || p.dtype == DType::f32);
    std::vector<double> column(static_cast<size_t>(p.k));
    for (int64_t n = 0; n < p.n; ++n) {
      for (int64_t k = 0; k < p.k; ++k) column[size_t(k)] = element(p.b, p.tf32, k, n);
      for (int64_t m = 0; m < p.m; ++m) {
        const int64_t at = m + n * p.leading;
        double sum = p.bias != nullptr ? double(read(p.bias, p.dtype, m)) : 0;
        if (p.accumulate) sum += double(read(p.d, p.dtype, at));
        for (int64_t k = 0; k < p.k; ++k) sum += element(p.a, p.tf32, m, k) * column[size_t(k)];
        write(p.d, p.dtype, at, finished(p, m, n, float(sum)));
      }
      if (p.column_sums != nullptr)
        p.column_sums[n] = float(std::accumulate(column.begin(), column.end(), 0.0));
    }
  }

  std::optional<size_t> attention_workspace(const FusedAttention& a) override {
    const auto bytes = size_t(a.is_gradient ? a.batch * a.heads * a.queries * (2 * a.keys + 4) : 0);
    if (bytes > a.workspace_max) return std::nullopt;
    return bytes;
  }
  void attend(const FusedAttention& a) override {
    const FloatState state;
    if (const size_t bytes = *attention_workspace(a); bytes > 0) std::memset(a.workspace, 0xff, bytes);
    emulate(a);
  }

  // By shape, as cuBLASLt; activations of f32 too, so that whole models can be checked closely.
  bool has_algorithm(const Product& p) override {
    const bool aligned = is_aligned(p.a.data, p.a.leading, p.a.dtype) &&
                         is_aligned(p.b.data, p.b.leading, p.b.dtype) && is_aligned(p.d, p.leading, p.dtype);
    const bool fits = !p.is_fp8() || (multiplies_fp8_ && p.a.transposed && !p.b.transposed);
    return fits && (aligned || !(p.is_fp8() || p.is_fused())) && p.pre_leading % 8 == 0;
  }

 private:
  ThreadOrder order_;
  DeviceMemory memory_;
  bool multiplies_fp8_;
  std::vector<char> going_out_;
};

}  // namespace

std::unique_ptr<DeviceRuntime> make_emulated_runtime(ThreadOrder order, const DeviceMemory& memory,
                                                     bool multiplies_fp8) {
  return std::make_unique<EmulatedRuntime>(order, memory, multiplies_fp8);
}

std::unique_ptr<CudaStream> make_emulated_stream(ThreadOrder order, const CudaLimits& limits,
                                                 const DeviceMemory& memory, bool multiplies_fp8) {
  return std::make_unique<CudaStream>(make_emulated_runtime(order, memory, multiplies_fp8), limits);
}

}  // namespace troupe::kernels
