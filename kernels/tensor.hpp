// Tensors: owners and views. A Buffer owns device memory and moves; a View is a matrix inside one: a trivially
// copyable (pointer, type, rows, columns, row stride), passed by value and never stored beyond the call or the step
// whose arena it came from. Every activation is a matrix (rows = tokens, cols = channels); attention gives rows and
// columns their meaning as (B, T) and (H, D).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

#include "kernels/base/error.hpp"

namespace troupe::kernels {

enum class DType : uint8_t { f32 = 1, bf16, i8, i32, i64, e4m3, e5m2 };  // the last two: fp8, in products alone

constexpr size_t size_of(DType type) {
  switch (type) {
    case DType::f32: return 4;
    case DType::bf16: return 2;
    case DType::i8: return 1;
    case DType::i32: return 4;
    case DType::i64: return 8;
    case DType::e4m3:
    case DType::e5m2: return 1;
  }
  return 0;
}
std::string_view to_string(DType type);

enum class DeviceKind : uint8_t { cpu = 1, cuda };
struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

template <typename Pointer>
struct BasicView {
  Pointer data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements from one row to the next, >= cols

  bool empty() const { return data == nullptr; }
  int64_t size() const { return rows * cols; }
  bool contiguous() const { return stride == cols || rows <= 1; }
  BasicView row_range(int64_t begin, int64_t count) const {
    TROUPE_CHECK(begin >= 0 && count >= 0 && begin + count <= rows);
    return {offset(begin * stride), dtype, count, cols, stride};
  }
  BasicView col_range(int64_t begin, int64_t count) const {
    TROUPE_CHECK(begin >= 0 && count >= 0 && begin + count <= cols);
    return {offset(begin), dtype, rows, count, stride};
  }
  // REQUIRES: T matches dtype (checked by size).
  template <typename T>
  auto* as() const {
    TROUPE_CHECK(sizeof(T) == size_of(dtype));
    if constexpr (std::is_const_v<std::remove_pointer_t<Pointer>>)
      return static_cast<const T*>(data);
    else
      return static_cast<T*>(data);
  }
  operator BasicView<const void*>() const { return {data, dtype, rows, cols, stride}; }

 private:
  Pointer offset(int64_t elements) const {
    using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const char, char>;
    return static_cast<Byte*>(data) + elements * int64_t(size_of(dtype));
  }
};
using View = BasicView<void*>;
using ConstView = BasicView<const void*>;

// A contiguous matrix over memory that the caller owns.
template <typename T>
constexpr DType dtype_of();
template <> constexpr DType dtype_of<float>() { return DType::f32; }
template <> constexpr DType dtype_of<int32_t>() { return DType::i32; }
template <> constexpr DType dtype_of<int64_t>() { return DType::i64; }
template <> constexpr DType dtype_of<int8_t>() { return DType::i8; }
template <> constexpr DType dtype_of<uint16_t>() { return DType::bf16; }  // bf16 is kept as its bits
template <typename T>
View view_of(T* data, int64_t rows, int64_t cols) { return {data, dtype_of<T>(), rows, cols, cols}; }
template <typename T>
ConstView view_of(const T* data, int64_t rows, int64_t cols) { return {data, dtype_of<T>(), rows, cols, cols}; }

// Owns bytes on a device, 64-byte aligned, uninitialised. Freed by the function its backend gave it.
class Buffer {
 public:
  using Free = void (*)(void* data, size_t bytes, Device device);
  Buffer() = default;
  Buffer(void* data, size_t bytes, Device device, Free release)
      : data_(data), bytes_(bytes), device_(device), release_(release) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept { Buffer(std::move(other)).swap(*this); return *this; }
  ~Buffer() { if (data_ != nullptr) release_(data_, bytes_, device_); }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(device_, other.device_);
    std::swap(release_, other.release_);
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  Device device_;
  Free release_ = nullptr;
};

// Hands out a slot's activations from one Buffer, front to back; reset() at the end of the slot.
// Views are 64-byte aligned. Not thread-safe: one per worker.
class Arena {
 public:
  explicit Arena(Buffer buffer) : buffer_(std::move(buffer)) {}
  // REQUIRES: room for it; throws Error(out_of_memory) naming the bytes asked for and the capacity.
  View take(DType dtype, int64_t rows, int64_t cols);
  size_t mark() const { return used_; }
  void reset(size_t mark = 0) { used_ = mark; }
  size_t used() const { return used_; }
  size_t peak() const { return peak_; }
  size_t capacity() const { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  size_t used_ = 0;
  size_t peak_ = 0;
};

}  // namespace troupe::kernels
