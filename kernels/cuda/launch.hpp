// How the kernels of kernels/cuda/device are run. A KernelCall is a kernel with its grid; the device runs it
// through `on_device`, the emulated device through `on_host`: thread by thread, phase by phase, in an order
// that the caller chooses. Results that depend on the order are races.
#pragma once

#include <array>
#include <cstring>
#include <vector>

#include "kernels/cuda/device/mma.hpp"
#include "kernels/tensor.hpp"

struct CUstream_st;  // what a cudaStream_t points to

namespace troupe::kernels {

inline constexpr size_t kKernelAlignment = 16;  // of copies of a kernel, at least

enum class ThreadOrder : uint8_t { forward = 1, backward, mixed };

struct KernelCall {
  const void* kernel = nullptr;
  size_t bytes = 0;  // of the kernel, which is all its arguments
  int64_t blocks = 0;
  const char* name = "";  // of the operation, for errors
  void (*on_host)(const void* kernel, int64_t blocks, ThreadOrder order) = nullptr;
  // Returns a cudaError_t. Null where the program was built without CUDA.
  int (*on_device)(const void* kernel, int64_t blocks, CUstream_st* stream) = nullptr;
};

namespace detail {

// The n-th of `count` threads in an order.
inline int64_t in_order(int64_t n, int64_t count, ThreadOrder order) {
  switch (order) {
    case ThreadOrder::forward:
      return n;
    case ThreadOrder::backward:
      return count - 1 - n;
    case ThreadOrder::mixed:
      return count % 7919 == 0 ? n : n * 7919 % count;  // a prime: each comes once
  }
  return n;
}

// ldmatrix.x4 and mma.m16n8k16 of one warp, as PTX defines them; f(lane) gives the lane's arguments.
template <typename F>
void load_warp_matrices(bool transposed, F&& f) {
  device::MatrixLoad loads[device::kWarp];
  for (int lane = 0; lane < device::kWarp; ++lane) {
    loads[lane] = f(lane);
    TROUPE_CHECK(reinterpret_cast<uintptr_t>(loads[lane].row) % 16 == 0,
                 "a matrix row not at a multiple of 16");
  }
  for (int lane = 0; lane < device::kWarp; ++lane)
    for (int i = 0; i < 4; ++i) {
      const device::MatrixLoad* rows = loads + 8 * i;
      const int a = lane / 4, b = lane % 4 * 2;
      const uint32_t low = transposed ? rows[b].row[a] : rows[a].row[b];
      const uint32_t high = transposed ? rows[b + 1].row[a] : rows[a].row[b + 1];
      loads[lane].to[i] = low | high << 16;
    }
}
template <typename F>
void multiply_warp(F&& f) {
  device::MatrixProduct products[device::kWarp];
  float a[16][16], b[16][8];
  const auto half = [](uint32_t pair, int i) { return device::widen(uint16_t(pair >> 16 * i)); };
  for (int lane = 0; lane < device::kWarp; ++lane) {
    products[lane] = f(lane);
    const int g = lane / 4, t = lane % 4 * 2;
    for (int i = 0; i < 2; ++i) {
      for (int r = 0; r < 4; ++r) a[g + r % 2 * 8][t + r / 2 * 8 + i] = half(products[lane].a[r], i);
      for (int r = 0; r < 2; ++r) b[t + r * 8 + i][g] = half(products[lane].b[r], i);
    }
  }
  for (int lane = 0; lane < device::kWarp; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
      double sum = 0;
      for (int k = 0; k < 16; ++k) sum += double(a[row][k]) * double(b[k][col]);
      products[lane].c[i] = float(double(products[lane].c[i]) + sum);
    }
}

// The Block of device/portable.hpp for the host. Shared and Registers start as bytes of ones (NaN, -1).
template <typename Kernel>
class HostBlock {
 public:
  using Shared = typename Kernel::Shared;
  using Registers = typename Kernel::Registers;
  static constexpr int kThreads = Kernel::kThreads;

  explicit HostBlock(ThreadOrder order) : order_(order), shared_(1), registers_(size_t(kThreads)) {}
  void start(int64_t index) {
    index_ = index;
    rows_read_.clear();
    std::memset(static_cast<void*>(shared_.data()), 0xff, sizeof(Shared));
    std::memset(static_cast<void*>(registers_.data()), 0xff, sizeof(Registers) * size_t(kThreads));
  }

  int64_t index() const { return index_; }
  Shared& shared() { return shared_[0]; }
  template <typename F>
  void each(F&& f) {
    std::vector<Row> before;
    for (const Row* row : rows_read_) before.push_back(*row);
    apart(f);
    // No barrier lies between these reads and what f wrote: on a device another warp may still be reading.
    for (size_t i = 0; i < before.size(); ++i)
      TROUPE_CHECK(before[i] == *rows_read_[i], "a phase overwrites shared memory that is being read");
    rows_read_.clear();
  }
  template <typename F>
  void apart(F&& f) {
    for (int64_t n = 0; n < kThreads; ++n) {
      const int thread = int(in_order(n, kThreads, order_));
      f(thread, registers_[size_t(thread)]);
    }
  }
  template <typename F>
  void warp_sum(F&& f) {
    reduce(f, device::kWarp, [](auto a, auto b) { return a + b; });
  }
  template <typename F>
  void warp_max(F&& f) {
    reduce(f, device::kWarp, [](auto a, auto b) { return device::larger(a, b); });
  }
  template <typename F>
  void quad_sum(F&& f) {
    reduce(f, 4, [](auto a, auto b) { return a + b; });
  }
  template <typename F>
  void quad_max(F&& f) {
    reduce(f, 4, [](auto a, auto b) { return device::larger(a, b); });
  }
  template <bool kTransposed, typename F>
  void load_matrices(F&& f) {
    for (int warp = 0; warp < kThreads; warp += device::kWarp)
      load_warp_matrices(kTransposed, [&](int lane) {
        const device::MatrixLoad load = f(warp + lane, registers_[size_t(warp + lane)]);
        rows_read_.push_back(reinterpret_cast<const Row*>(load.row));
        return load;
      });
  }
  template <typename F>
  void multiply(F&& f) {
    for (int warp = 0; warp < kThreads; warp += device::kWarp)
      multiply_warp([&](int lane) { return f(warp + lane, registers_[size_t(warp + lane)]); });
  }
  void raise(uint32_t* flags, uint32_t value) { *flags |= value; }

 private:
  template <typename F, typename Join>
  void reduce(F&& f, int lanes, Join&& join) {
    using Value = std::remove_cvref_t<decltype(f(0, registers_[0]))>;
    static_assert(kThreads % device::kWarp == 0);
    for (int warp = 0; warp < kThreads; warp += device::kWarp)
      for (int offset = lanes / 2; offset > 0; offset /= 2) {
        Value before[device::kWarp];
        for (int lane = 0; lane < device::kWarp; ++lane)
          before[lane] = f(warp + lane, registers_[size_t(warp + lane)]);
        for (int lane = 0; lane < device::kWarp; ++lane)
          f(warp + lane, registers_[size_t(warp + lane)]) = join(before[lane], before[lane ^ offset]);
      }
  }

  using Row = std::array<uint16_t, 8>;  // of a matrix that a warp loads

  ThreadOrder order_;
  int64_t index_ = 0;
  std::vector<const Row*> rows_read_;  // since the last barrier
  std::vector<Shared> shared_;
  std::vector<Registers> registers_;
};

template <typename Kernel>
void run_on_host(const void* kernel, int64_t blocks, ThreadOrder order) {
  HostBlock<Kernel> block(order);
  for (int64_t n = 0; n < blocks; ++n) {
    block.start(in_order(n, blocks, order));
    (*static_cast<const Kernel*>(kernel))(block);
  }
}

}  // namespace detail

#if defined(TROUPE_CUDA)
// Defined for each kernel that is used, by TROUPE_KERNEL in a .cu file.
template <typename Kernel>
int launch_on_device(const void* kernel, int64_t blocks, CUstream_st* stream);
#endif

// REQUIRES: `kernel` outlives the call it is used in.
template <typename Kernel>
KernelCall call_of(const Kernel& kernel, int64_t blocks, const char* name) {
  static_assert(std::is_trivially_copyable_v<Kernel> && alignof(Kernel) <= kKernelAlignment);
#if defined(TROUPE_CUDA)
  return {&kernel, sizeof(Kernel), blocks, name, detail::run_on_host<Kernel>, launch_on_device<Kernel>};
#else
  return {&kernel, sizeof(Kernel), blocks, name, detail::run_on_host<Kernel>, nullptr};
#endif
}

}  // namespace troupe::kernels
