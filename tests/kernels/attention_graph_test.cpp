// cuDNN's attention without a GPU: what it offers for the graphs on GPUs that are described to it.
#include "kernels/cuda/attention_graph.hpp"

#include <dlfcn.h>
#include <doctest/doctest.h>

using namespace troupe;
using namespace troupe::kernels;

namespace {

struct Gpu {
  const char* name;
  int version;  // 900 for compute capability 9.0
  int multiprocessors, shared_bytes;
};
constexpr Gpu kGpus[] = {{"A100", 800, 108, 166912}, {"H200", 900, 132, 232448}, {"B200", 1000, 148, 232448}};

// cuDNN looks for the driver before it says what it can do; the toolkit's stand-in is enough.
bool has_driver() {
  return dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL) != nullptr ||
         dlopen(TROUPE_CUDA_STUB, RTLD_NOW | RTLD_GLOBAL) != nullptr;
}

cudnn::Descriptor describe(const Gpu& gpu) {
  const std::string json = fmt::format(
      R"({{"deviceName":"{}","cudaDeviceId":0,"deviceVer":{},"driverVer":13000,"totalGlobalMem":80000000000,)"
      R"("maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,)"
      R"("multiProcessorCount":{},"smClockRateKHz":1500000,"memClockRateKHz":2000000,"l2CacheSize":50000000,)"
      R"("warpSize":32,"maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":{},)"
      R"("reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,"pciDeviceId":0,"maxCtasPerSM":32,)"
      R"("maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"isTccDriver":0,"supportCoopLaunch":1}})",
      gpu.name, gpu.version, gpu.multiprocessors, gpu.shared_bytes);
  cudnn::Descriptor device(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, "device");
  device.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, std::span<const char>(json.c_str(), json.size() + 1));
  device.finalize();
  return device;
}

// q, k and v as column ranges of one matrix where queries and keys are as many.
FusedAttention attention_of(int64_t batch, int64_t queries, int64_t keys, int64_t heads, int64_t size) {
  FusedAttention a;
  a.batch = batch;
  a.queries = queries;
  a.keys = keys;
  a.heads = heads;
  a.head_size = size;
  const int64_t width = heads * size;
  a.q.stride = a.dq.stride = queries == keys ? 3 * width : width;
  a.k.stride = a.v.stride = a.dk.stride = a.dv.stride = queries == keys ? 3 * width : 2 * width;
  a.out.stride = a.dout.stride = width;
  return a;
}

}  // namespace

TEST_CASE("cuDNN has engines for attention and its gradient that give the same bits every time") {
  REQUIRE(has_driver());
  for (const Gpu& gpu : kGpus) {
    const cudnn::Descriptor device = describe(gpu);
    for (FusedAttention a : {attention_of(8, 1024, 1024, 12, 64), attention_of(1, 128, 128, 1, 8),
                             attention_of(64, 128, 256, 8, 32), attention_of(2, 4096, 4096, 16, 128)})
      for (const bool causal : {false, true})
        for (const bool is_gradient : {false, true}) {
          if (causal && a.queries != a.keys) continue;
          a.causal = causal;
          a.is_gradient = is_gradient;
          CAPTURE(gpu.name);
          CAPTURE(a.queries);
          CAPTURE(a.keys);
          CAPTURE(a.head_size);
          CAPTURE(causal);
          CAPTURE(is_gradient);
          const auto engines = AttentionGraph(a, nullptr).engines(device.get());
          REQUIRE(engines.size() >= 1);
          CHECK(AttentionGraph::name_of(engines[0]).find("(") != std::string::npos);
        }
  }
}

TEST_CASE("cuDNN offers nothing for heads that it does not know, and says what is wrong with a graph") {
  REQUIRE(has_driver());
  const cudnn::Descriptor device = describe(kGpus[1]);
  CHECK(AttentionGraph(attention_of(2, 128, 128, 2, 12), nullptr).engines(device.get()).empty());
  FusedAttention backwards = attention_of(2, 128, 128, 2, 64);
  backwards.q.stride = -1;
  CHECK_THROWS_AS(AttentionGraph(backwards, nullptr), Error);
}
