// The Block of portable.hpp for the device, and the function that starts a grid. Included by .cu files alone,
// which name the kernels they build: TROUPE_KERNEL(ActivationForward<float, 8>);
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/device/mma.hpp"

namespace troupe::kernels::device {

template <typename Kernel>
class DeviceBlock {
 public:
  using Shared = typename Kernel::Shared;
  using Registers = typename Kernel::Registers;

  __device__ explicit DeviceBlock(void* shared) : shared_(*static_cast<Shared*>(shared)) {}

  __device__ __forceinline__ int64_t index() const { return blockIdx.x; }
  __device__ __forceinline__ Shared& shared() { return shared_; }
  template <typename F>
  __device__ __forceinline__ void each(F&& f) {
    f(int(threadIdx.x), registers_);
    __syncthreads();
  }
  template <typename F>
  __device__ __forceinline__ void apart(F&& f) {
    f(int(threadIdx.x), registers_);
  }
  template <typename F>
  __device__ __forceinline__ void warp_sum(F&& f) {
    sum_lanes<kWarp>(f(int(threadIdx.x), registers_));
  }
  template <typename F>
  __device__ __forceinline__ void warp_max(F&& f) {
    max_lanes<kWarp>(f(int(threadIdx.x), registers_));
  }
  template <typename F>
  __device__ __forceinline__ void quad_sum(F&& f) {
    sum_lanes<4>(f(int(threadIdx.x), registers_));
  }
  template <typename F>
  __device__ __forceinline__ void quad_max(F&& f) {
    max_lanes<4>(f(int(threadIdx.x), registers_));
  }
  template <bool kTransposed, typename F>
  __device__ __forceinline__ void load_matrices(F&& f) {
    const MatrixLoad l = f(int(threadIdx.x), registers_);
    const auto row = unsigned(__cvta_generic_to_shared(l.row));
    if constexpr (kTransposed)
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(l.to[0]), "=r"(l.to[1]), "=r"(l.to[2]), "=r"(l.to[3])
                   : "r"(row)
                   : "memory");
    else
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(l.to[0]), "=r"(l.to[1]), "=r"(l.to[2]), "=r"(l.to[3])
                   : "r"(row)
                   : "memory");
  }
  template <typename F>
  __device__ __forceinline__ void multiply(F&& f) {
    const MatrixProduct p = f(int(threadIdx.x), registers_);
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(p.c[0]), "+f"(p.c[1]), "+f"(p.c[2]), "+f"(p.c[3])
        : "r"(p.a[0]), "r"(p.a[1]), "r"(p.a[2]), "r"(p.a[3]), "r"(p.b[0]), "r"(p.b[1]));
  }
  __device__ __forceinline__ void raise(uint32_t* flags, uint32_t value) { atomicOr(flags, value); }

 private:
  template <int kLanes, typename Value>
  static __device__ __forceinline__ void sum_lanes(Value& value) {
#pragma unroll
    for (int offset = kLanes / 2; offset > 0; offset /= 2)
      value = value + __shfl_xor_sync(~0u, value, offset);
  }
  template <int kLanes, typename Value>
  static __device__ __forceinline__ void max_lanes(Value& value) {
#pragma unroll
    for (int offset = kLanes / 2; offset > 0; offset /= 2)
      value = larger(value, static_cast<Value>(__shfl_xor_sync(~0u, shuffled(value), offset)));
  }
  static __device__ __forceinline__ float shuffled(float x) {
    return x;
  }
  static __device__ __forceinline__ unsigned shuffled(uint32_t x) {
    return x;
  }
  static __device__ __forceinline__ unsigned long long shuffled(uint64_t x) {
    return x;
  }

  Shared& shared_;
  Registers registers_;
};

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads) run(const __grid_constant__ Kernel kernel) {
  extern __shared__ __align__(16) unsigned char memory[];
  DeviceBlock<Kernel> block(memory);
  kernel(block);
}

template <typename Kernel>
int start(const void* kernel, int64_t blocks, cudaStream_t stream) {
  constexpr size_t kBytes = sizeof(typename Kernel::Shared);
  static_assert(kBytes <= 163 * 1024, "more shared memory than a block of sm_80 may have");
  if constexpr (kBytes > 48 * 1024) {
    const cudaError_t raised =
        cudaFuncSetAttribute(run<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(kBytes));
    if (raised != cudaSuccess) return int(raised);
  }
  void* arguments[] = {const_cast<void*>(kernel)};
  return int(cudaLaunchKernel(run<Kernel>, dim3(unsigned(blocks)), dim3(Kernel::kThreads), arguments, kBytes,
                              stream));
}

}  // namespace troupe::kernels::device

namespace troupe::kernels {
template <typename Kernel>
int launch_on_device(const void* kernel, int64_t blocks, cudaStream_t stream);
}

// At namespace scope of troupe::kernels.
#define TROUPE_KERNEL(...)                                                                        \
  template <>                                                                                     \
  int launch_on_device<device::__VA_ARGS__>(const void* kernel, int64_t blocks, cudaStream_t s) { \
    return device::start<device::__VA_ARGS__>(kernel, blocks, s);                                 \
  }
