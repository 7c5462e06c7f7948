#include "kernels/cuda/backend.hpp"

#include "kernels/cuda/check.hpp"
#include "kernels/cuda/cuda_graph.hpp"
#include "kernels/cuda/cuda_runtime.hpp"
#include "kernels/cuda/fused_attention.hpp"
#include "kernels/cuda/graph_runtime.hpp"
#include "kernels/cuda/products.hpp"
#include "kernels/cuda/topology.hpp"

namespace troupe::kernels {

namespace {

cudaDeviceProp properties_of(int index) {
  const int count = cuda_device_count();
  if (index < 0 || index >= count)
    throw error(ErrorKind::device, "there is no GPU {}: this machine has {} that this program can use", index,
                count);
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, index), "cannot read the properties of GPU {}", index);
  return properties;
}

std::string words_of(const cudaDeviceProp& properties) {
  int runtime = 0, driver = 0;
  check_cuda(cudaRuntimeGetVersion(&runtime), "cannot read CUDA's version");
  check_cuda(cudaDriverGetVersion(&driver), "cannot read the driver's version");
  return fmt::format("{}, sm_{}{}, {} multiprocessors, CUDA {}.{} (driver for {}.{}), cuBLAS {}",
                     properties.name, properties.major, properties.minor, properties.multiProcessorCount,
                     runtime / 1000, runtime / 10 % 100, driver / 1000, driver / 10 % 100, cublas_version());
}

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

std::string cuda_numerics(int index) {
  return fmt::format("{}, {}", words_of(properties_of(index)), attention_numerics(index));
}

std::string cuda_description(int index) {
  const cudaDeviceProp properties = properties_of(index);
  return fmt::format("{}, {} MiB", words_of(properties), properties.totalGlobalMem >> 20);
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

std::unique_ptr<CudaStream> make_cuda_stream(int index, const CudaLimits& limits) {
  auto direct = make_cuda_runtime(index);
  auto graphs = make_cuda_graphs(*direct, index);
  return std::make_unique<CudaStream>(std::make_unique<GraphRuntime>(std::move(direct), std::move(graphs)),
                                      limits);
}

}  // namespace troupe::kernels
