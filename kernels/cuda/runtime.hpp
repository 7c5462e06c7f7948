// What a CudaStream needs of its device, and nothing of CUDA itself: memory, copies, kernels, matrix products
// and attention, in the order of the calls. CudaRuntime is a CUDA stream; EmulatedRuntime executes at once on
// the host, so that everything above it runs and is tested where there is no GPU. One thread at a time.
#pragma once

#include <memory>
#include <optional>

#include "kernels/cuda/launch.hpp"
#include "kernels/tensor.hpp"

namespace troupe::kernels {

// What is done with the elements of a product before they are written, beside its bias. gelu: pre = the
// element, d = gelu(it), from the f32 sum. gelu_gradient: d = the element times gelu's slope at pre.
enum class Epilogue : uint8_t { none = 0, gelu, gelu_gradient };

// A product as cuBLASLt takes it, column-major: d (m, n) = op(a) op(b) [+ bias a row] [+ d]. A row-major
// matrix with stride s is its transpose, column-major, with leading dimension s. Factors of fp8 have an op
// that makes a transposed and b not.
struct Product {
  struct Factor {
    const void* data = nullptr;
    int64_t rows = 0, cols = 0, leading = 0;  // as it lies, column-major
    bool transposed = false;                  // op
    DType dtype = DType::f32;
    const float* scale = nullptr;  // fp8: on the device, what the elements are multiplied by
    bool operator==(const Factor&) const = default;
  };
  int64_t m = 0, n = 0, k = 0;
  Factor a, b;
  void* d = nullptr;
  int64_t leading = 0;  // of d
  DType dtype = DType::f32;
  const void* bias = nullptr;  // (m) of d's type, or null
  bool accumulate = false;
  Epilogue epilogue = Epilogue::none;
  void* pre = nullptr;  // (m, n) of d's type
  int64_t pre_leading = 0;
  float* column_sums = nullptr;  // (n) of op(b), written beside d, which is f32; or null
  bool tf32 = false;             // factors of f32 count with 10 bits of mantissa, where the device can

  // Whether it can be had by another product, and kernels beside it.
  bool is_fused() const { return epilogue != Epilogue::none || column_sums != nullptr; }
  bool is_fp8() const { return size_of(a.dtype) == 1; }
  bool operator==(const Product&) const = default;
};

// Attention, or its gradient, as cuDNN's fused kernels take it: bf16, all keys of a sequence, no dropout.
// Rows of q, out and their gradients are those of (batch, queries), of k, v and theirs those of (batch,
// keys); the heads of a row lie behind one another.
struct FusedAttention {
  struct Rows {
    void* data = nullptr;  // of q, k, v, and in the backward pass of out and dout, it is only read
    int64_t stride = 0;    // from row to row, in elements
    bool operator==(const Rows&) const = default;
  };
  int64_t batch = 0, queries = 0, keys = 0, heads = 0, head_size = 0;
  bool causal = false;  // query i sees keys up to i
  bool is_gradient = false;
  Rows q, k, v, out;
  float* lse = nullptr;   // (batch, heads, queries): written in the forward pass, read in the backward pass
  Rows dout, dq, dk, dv;  // of the gradient
  void* workspace = nullptr;  // of attention_workspace's bytes, 64-byte aligned
  size_t workspace_max = SIZE_MAX;
  bool operator==(const FusedAttention&) const = default;
};

struct DeviceMemory {
  size_t free = 0, total = 0;  // bytes
};

class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;
  virtual Device device() const = 0;
  virtual DeviceMemory memory() const = 0;  // as it is now: others may use the device too
  virtual void synchronize() = 0;
  virtual void* native() const = 0;  // the cudaStream_t, for measuring; null where there is none

  // Throws Error(out_of_memory) that says what was wanted and what is free.
  virtual Buffer allocate(size_t bytes) = 0;
  // `from` may be reused when the call returns.
  virtual void copy_in(void* to, const void* from, size_t bytes) = 0;
  virtual void copy_out(void* to, const void* from, size_t bytes) = 0;  // waits
  // For small results: copies what is there now, without waiting; finish_copy_out waits. One such copy at a
  // time: one that was never finished, as what came between has failed, is forgotten when the next begins.
  virtual void start_copy_out(const void* from, size_t bytes) = 0;
  virtual void finish_copy_out(void* to) = 0;
  // On the device, `rows` of `bytes` each, strides in bytes.
  virtual void copy_rows(void* to, size_t to_stride, const void* from, size_t from_stride, size_t bytes,
                         size_t rows) = 0;
  virtual void zero_rows(void* to, size_t stride, size_t bytes, size_t rows) = 0;

  // Throws Error(device) with the call's name.
  virtual void launch(const KernelCall& call) = 0;
  // Throws Error(device) with the shape. The same bits for the same shape and alignment, every time.
  // REQUIRES has_algorithm where the product is fused or of fp8; others are multiplied in any case.
  virtual void multiply(const Product& product) = 0;
  // Decided by shape, types, alignment and the kind of device alone; reads and writes nothing of the product.
  virtual bool has_algorithm(const Product& product) = 0;

  // What `attend` needs for this shape, in bytes; nothing where the device has no algorithm for it that gives
  // the same bits every time and needs workspace_max at most. Decided like has_algorithm; memory is not
  // looked at.
  virtual std::optional<size_t> attention_workspace(const FusedAttention& attention) = 0;
  // Throws Error(device) with the shape. REQUIRES attention_workspace(attention).
  virtual void attend(const FusedAttention& attention) = 0;

  // A mark stands behind all calls made before it was set, where it was set last; waiting for one returns
  // when they are done, whatever comes behind.
  static constexpr size_t kMarks = 3;
  virtual void set_mark(size_t mark) = 0;
  virtual void wait_for_mark(size_t mark) = 0;

  // A runtime that gathers calls (graph_runtime.hpp) may make those between these two later, in their order,
  // at the latest when one waits or the gathering ends; other runtimes make every call at once. REQUIRES:
  // memory that the calls name is not given back meanwhile, and one gathering at a time.
  virtual void begin_gathering() {}
  virtual void end_gathering() {}
  virtual void drop_gathered() noexcept {}  // ends a gathering whose work has failed
};

// work(), its calls gathered. When it throws, those that were not made yet never are.
template <typename Work>
auto gathered(DeviceRuntime& runtime, Work&& work) {
  runtime.begin_gathering();
  try {
    if constexpr (std::is_void_v<decltype(work())>) {
      work();
      runtime.end_gathering();
    } else {
      auto result = work();
      runtime.end_gathering();
      return result;
    }
  } catch (...) {
    runtime.drop_gathered();
    throw;
  }
}

}  // namespace troupe::kernels
