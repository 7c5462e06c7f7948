#include "kernels/cuda/backend.hpp"

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/cuda_graph.hpp"
#include "kernels/cuda/cuda_runtime.hpp"
#include "kernels/cuda/graph_runtime.hpp"
#include "kernels/cuda/products.hpp"
#include "kernels/cuda/topology.hpp"

namespace troupe::kernels {

namespace {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(int index) : index_(index) {}

  Device device() const override { return {DeviceKind::cuda, index_}; }
  std::string description() const override {
    cudaDeviceProp properties{};
    int runtime = 0, driver = 0;
    check_cuda(cudaGetDeviceProperties(&properties, index_), "cannot read the properties of GPU {}", index_);
    check_cuda(cudaRuntimeGetVersion(&runtime), "cannot read CUDA's version");
    check_cuda(cudaDriverGetVersion(&driver), "cannot read the driver's version");
    return fmt::format("{}, sm_{}{}, {} multiprocessors, {} MiB, CUDA {}.{} (driver for {}.{}), cuBLAS {}",
                       properties.name, properties.major, properties.minor, properties.multiProcessorCount,
                       properties.totalGlobalMem >> 20, runtime / 1000, runtime / 10 % 100, driver / 1000,
                       driver / 10 % 100, cublas_version());
  }
  Buffer allocate(size_t bytes) override { return allocate_cuda(bytes, index_); }
  std::unique_ptr<Stream> create_stream() override { return make_cuda_stream(index_); }

  void copy_to_host(ConstView from, void* host) override {
    if (from.size() == 0) return;
    const size_t bytes = size_t(from.cols) * size_of(from.dtype);
    wait_for_all();
    check_cuda(cudaMemcpy2D(host, bytes, from.data, size_t(from.stride) * size_of(from.dtype), bytes,
                            size_t(from.rows), cudaMemcpyDeviceToHost),
               "cannot copy {} rows of {} bytes from GPU {}", from.rows, bytes, index_);
  }
  void copy_from_host(const void* host, View to) override {
    if (to.size() == 0) return;
    const size_t bytes = size_t(to.cols) * size_of(to.dtype);
    wait_for_all();
    check_cuda(cudaMemcpy2D(to.data, size_t(to.stride) * size_of(to.dtype), host, bytes, bytes,
                            size_t(to.rows), cudaMemcpyHostToDevice),
               "cannot copy {} rows of {} bytes to GPU {}", to.rows, bytes, index_);
  }

 private:
  void wait_for_all() const {
    check_cuda(cudaSetDevice(index_), "cannot use GPU {}", index_);
    check_cuda(cudaDeviceSynchronize(), "the work on GPU {} failed", index_);
  }

  int index_;
};

}  // namespace

int cuda_device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver) {
    cudaGetLastError();  // answered for: later calls are not to report it
    return 0;
  }
  check_cuda(status, "cannot count the GPUs");
  return count;
}

std::string cuda_topology(std::span<const int> indices) {
  std::vector<PlacedGpu> gpus;
  for (const int index : indices) {
    char bus[32] = {};
    check_cuda(cudaDeviceGetPCIBusId(bus, sizeof bus, index), "cannot ask where GPU {} is", index);
    gpus.push_back({fmt::format("cuda:{}", index), bus});
  }
  const auto reaches = [&](size_t from, size_t to) {
    int can = 0;
    check_cuda(cudaDeviceCanAccessPeer(&can, indices[from], indices[to]),
               "cannot ask whether GPU {} reaches GPU {}", indices[from], indices[to]);
    return can != 0;
  };
  return describe_topology(gpus, reaches, load_nvml());
}

std::unique_ptr<CudaStream> make_cuda_stream(int index) {
  auto direct = make_cuda_runtime(index);
  auto graphs = make_cuda_graphs(*direct, index);
  return std::make_unique<CudaStream>(std::make_unique<GraphRuntime>(std::move(direct), std::move(graphs)));
}

std::unique_ptr<Backend> make_cuda_backend(int index) {
  const int count = cuda_device_count();
  if (index < 0 || index >= count)
    throw error(ErrorKind::device, "there is no GPU {}: this machine has {} that this program can use", index,
                count);
  return std::make_unique<CudaBackend>(index);
}

}  // namespace troupe::kernels
