#include "kernels/cuda/cuda_runtime.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/fused_attention.hpp"
#include "kernels/cuda/plain_product.hpp"
#include "kernels/cuda/products.hpp"
#include "kernels/cuda/staging.hpp"

namespace troupe::kernels {

namespace {

// A CUDA stream that does not wait for the default one.
class OwnedStream {
 public:
  explicit OwnedStream(int device) {
    check_cuda(cudaSetDevice(device), "cannot use GPU {}", device);
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cannot create a stream on GPU {}",
               device);
  }
  ~OwnedStream() {
    report_cuda(cudaStreamSynchronize(stream_), "ending a stream");
    report_cuda(cudaStreamDestroy(stream_), "ending a stream");
  }
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// Made when it is recorded for the first time.
class OwnedEvent {
 public:
  OwnedEvent() = default;
  ~OwnedEvent() {
    if (event_ != nullptr) report_cuda(cudaEventDestroy(event_), "giving back an event");
  }
  OwnedEvent(const OwnedEvent&) = delete;
  OwnedEvent& operator=(const OwnedEvent&) = delete;
  void record(cudaStream_t stream) {
    if (event_ == nullptr)
      check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cannot create an event");
    check_cuda(cudaEventRecord(event_, stream), "cannot record an event");
  }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class CudaRuntime final : public DeviceRuntime {
 public:
  explicit CudaRuntime(int device)
      : index_(device),
        stream_(device),
        workspace_(allocate_cuda(CudaProducts::kWorkspaceBytes, device)),
        products_(stream_.get(), workspace_.data()),
        attention_(stream_.get(), device),
        staging_(stream_.get()) {}

  Device device() const override { return {DeviceKind::cuda, index_}; }
  DeviceMemory memory() const override { return cuda_memory(index_); }
  void synchronize() override {
    activate();
    check_cuda(cudaStreamSynchronize(stream_.get()), "the work of a stream on GPU {} failed", index_);
  }
  void* native() const override { return stream_.get(); }
  Buffer allocate(size_t bytes) override { return allocate_cuda(bytes, index_); }

  void copy_in(void* to, const void* from, size_t bytes) override {
    activate();
    staging_.copy_in(to, from, bytes);
  }
  void copy_out(void* to, const void* from, size_t bytes) override {
    activate();
    staging_.copy_out(to, from, bytes);
  }
  void start_copy_out(const void* from, size_t bytes) override {
    activate();
    staging_.start_copy_out(from, bytes);
  }
  void finish_copy_out(void* to) override {
    activate();
    staging_.finish_copy_out(to);
  }
  void copy_rows(void* to, size_t to_stride, const void* from, size_t from_stride, size_t bytes,
                 size_t rows) override {
    activate();
    const bool flat = rows == 1 || (to_stride == bytes && from_stride == bytes);
    check_cuda(flat ? cudaMemcpyAsync(to, from, bytes * rows, cudaMemcpyDeviceToDevice, stream_.get())
                    : cudaMemcpy2DAsync(to, to_stride, from, from_stride, bytes, rows,
                                        cudaMemcpyDeviceToDevice, stream_.get()),
               "cannot copy {} rows of {} bytes on GPU {}", rows, bytes, index_);
  }
  void zero_rows(void* to, size_t stride, size_t bytes, size_t rows) override {
    activate();
    const bool flat = rows == 1 || stride == bytes;
    check_cuda(flat ? cudaMemsetAsync(to, 0, bytes * rows, stream_.get())
                    : cudaMemset2DAsync(to, stride, 0, bytes, rows, stream_.get()),
               "cannot zero {} rows of {} bytes on GPU {}", rows, bytes, index_);
  }

  void set_mark(size_t mark) override {
    activate();
    marks_.at(mark).record(stream_.get());
  }
  void wait_for_mark(size_t mark) override {
    activate();
    const cudaEvent_t event = marks_.at(mark).get();
    TROUPE_CHECK(event != nullptr, "mark {} has not been set", mark);
    check_cuda(cudaEventSynchronize(event), "the work of a stream on GPU {} failed", index_);
  }

  void launch(const KernelCall& call) override {
    activate();
    TROUPE_CHECK(call.blocks >= 1 && call.blocks <= std::numeric_limits<int32_t>::max(),
                 "a grid of {} blocks", call.blocks);
    check_cuda(cudaError_t(call.on_device(call.kernel, call.blocks, stream_.get())),
               "cannot start {} with {} blocks on GPU {}", call.name, call.blocks, index_);
  }
  void multiply(const Product& product) override {
    activate();
    if (!products_.multiply(product)) multiply_plainly(*this, product);
  }
  bool has_algorithm(const Product& product) override {
    activate();
    return products_.has_algorithm(product);
  }
  std::optional<size_t> attention_workspace(const FusedAttention& attention) override {
    activate();
    return attention_.workspace(attention);
  }
  void attend(const FusedAttention& attention) override {
    activate();
    attention_.attend(attention);
  }

 private:
  // CUDA's current device belongs to the thread, and other code may have chosen another.
  void activate() const { check_cuda(cudaSetDevice(index_), "cannot use GPU {}", index_); }

  int index_;
  OwnedStream stream_;
  std::array<OwnedEvent, kMarks> marks_;
  Buffer workspace_;
  CudaProducts products_;
  CudnnAttention attention_;
  Staging staging_;
};

}  // namespace

int cuda_capability(int device) {
  int major = 0, minor = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "cannot ask for the compute capability of GPU {}", device);
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
             "cannot ask for the compute capability of GPU {}", device);
  return 10 * major + minor;
}

DeviceMemory cuda_memory(int device) {
  DeviceMemory memory;
  check_cuda(cudaSetDevice(device), "cannot use GPU {}", device);
  check_cuda(cudaMemGetInfo(&memory.free, &memory.total), "cannot ask for the free memory of GPU {}", device);
  return memory;
}

Buffer allocate_cuda(size_t bytes, int device) {
  check_cuda(cudaSetDevice(device), "cannot use GPU {}", device);
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, std::max<size_t>(bytes, 256));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // the failure is answered for here: later calls are not to report it again
    const auto [free, total] = cuda_memory(device);
    throw error(
        ErrorKind::out_of_memory,
        "cannot allocate {} bytes on GPU {}: {} of its {} bytes are free; use a smaller batch or model",
        bytes, device, free, total);
  }
  check_cuda(status, "cannot allocate {} bytes on GPU {}", bytes, device);
  return Buffer(data, bytes, {DeviceKind::cuda, device}, [](void* p, size_t, Device at) {
    report_cuda(cudaSetDevice(at.index), "giving back memory of a GPU");
    report_cuda(cudaFree(p), "giving back memory of a GPU");
  });
}

std::unique_ptr<DeviceRuntime> make_cuda_runtime(int device) {
  return std::make_unique<CudaRuntime>(device);
}

}  // namespace troupe::kernels
