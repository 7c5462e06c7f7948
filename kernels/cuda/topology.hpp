// How the GPUs of a machine are joined, in words, for logs and `troupe doctor`: nothing is decided by it.
// NVML, which comes with the driver, knows; it is looked for when the program runs, and where it is missing
// the words say so. Needs no CUDA.
#pragma once

#include <functional>
#include <span>
#include <string>

namespace troupe::kernels {

// What is used of libnvidia-ml.so.1. Each returns 0 when it did what it was asked for.
// https://docs.nvidia.com/deploy/nvml-api
struct Nvml {
  using Gpu = void*;
  int (*start)() = nullptr;                                     // nvmlInit_v2
  int (*end)() = nullptr;                                       // nvmlShutdown
  int (*find)(const char* pci_bus, Gpu* gpu) = nullptr;         // nvmlDeviceGetHandleByPciBusId_v2
  int (*joined)(Gpu a, Gpu b, int way, int* status) = nullptr;  // nvmlDeviceGetP2PStatus
  int (*common_ancestor)(Gpu a, Gpu b, int* level) = nullptr;   // nvmlDeviceGetTopologyCommonAncestor
  bool whole() const { return start && end && find && joined && common_ancestor; }
};

// Of the library, which stays loaded; not whole where there is none.
Nvml load_nvml(const char* library = "libnvidia-ml.so.1");

struct PlacedGpu {
  std::string name;     // for people: "cuda:0"
  std::string pci_bus;  // "0000:17:00.0"
};

// Of each pair: NVLink or what of PCIe lies between, and whether either reaches the other's memory, which
// `reaches` says. Pairs that are joined alike are named together.
std::string describe_topology(std::span<const PlacedGpu> gpus,
                              const std::function<bool(size_t from, size_t to)>& reaches, const Nvml& nvml);

}  // namespace troupe::kernels
