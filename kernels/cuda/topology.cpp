#include "kernels/cuda/topology.hpp"

#include <utility>
#include <vector>

#include <dlfcn.h>
#include <fmt/format.h>

namespace troupe::kernels {

namespace {

// nvmlGpuP2PCapsIndex_t, nvmlGpuP2PStatus_t, nvmlGpuTopologyLevel_t.
constexpr int kOverNvLink = 2;
constexpr int kWorks = 0;
constexpr int kOneBoard = 0, kOneSwitch = 10, kSwitches = 20, kHostBridge = 30, kNumaNode = 40, kSystem = 50;

template <typename Function>
void find_symbol(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
}

const char* words_of(int level) {
  switch (level) {
    case kOneBoard:
      return "on one board";
    case kOneSwitch:
      return "one PCIe switch";
    case kSwitches:
      return "several PCIe switches";
    case kHostBridge:
      return "a PCIe host bridge";
    case kNumaNode:
      return "host bridges of one NUMA node";
    case kSystem:
      return "different NUMA nodes";
    default:
      return "joined in an unknown way";
  }
}

// NVML while it is in use.
class Session {
 public:
  Session(const Nvml& nvml, std::span<const PlacedGpu> gpus) : nvml_(nvml) {
    started_ = nvml.whole() && nvml.start() == 0;
    for (const PlacedGpu& gpu : gpus) {
      Nvml::Gpu found = nullptr;
      if (started_ && nvml.find(gpu.pci_bus.c_str(), &found) != 0) found = nullptr;
      gpus_.push_back(found);
    }
  }
  ~Session() {
    if (started_) nvml_.end();
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  bool started() const { return started_; }
  std::string between(size_t a, size_t b) const {
    if (gpus_[a] == nullptr || gpus_[b] == nullptr) return "joined in an unknown way";
    int status = -1, level = -1;
    if (nvml_.joined(gpus_[a], gpus_[b], kOverNvLink, &status) == 0 && status == kWorks) return "NVLink";
    return words_of(nvml_.common_ancestor(gpus_[a], gpus_[b], &level) == 0 ? level : -1);
  }

 private:
  const Nvml& nvml_;
  bool started_ = false;
  std::vector<Nvml::Gpu> gpus_;
};

}  // namespace

Nvml load_nvml(const char* library) {
  Nvml nvml;
  void* loaded = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (loaded == nullptr) return nvml;
  find_symbol(loaded, "nvmlInit_v2", nvml.start);
  find_symbol(loaded, "nvmlShutdown", nvml.end);
  find_symbol(loaded, "nvmlDeviceGetHandleByPciBusId_v2", nvml.find);
  find_symbol(loaded, "nvmlDeviceGetP2PStatus", nvml.joined);
  find_symbol(loaded, "nvmlDeviceGetTopologyCommonAncestor", nvml.common_ancestor);
  return nvml;
}

std::string describe_topology(std::span<const PlacedGpu> gpus,
                              const std::function<bool(size_t, size_t)>& reaches, const Nvml& nvml) {
  const Session session(nvml, gpus);
  std::vector<std::pair<std::string, std::string>> ways;  // in words, with the pairs that are joined so
  for (size_t a = 0; a < gpus.size(); ++a)
    for (size_t b = a + 1; b < gpus.size(); ++b) {
      const bool peers = reaches(a, b) && reaches(b, a);
      std::string way = session.started() ? session.between(a, b) + ", " : "";
      way += peers ? "peer access" : "no peer access";
      auto found = ways.begin();
      while (found != ways.end() && found->first != way) ++found;
      if (found == ways.end()) found = ways.insert(found, {way, ""});
      found->second +=
          fmt::format("{}{} and {}", found->second.empty() ? "" : ", ", gpus[a].name, gpus[b].name);
    }
  std::string text = session.started() ? "" : "topology unknown, for want of NVML";
  for (const auto& [way, pairs] : ways)
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", ways.size() == 1 ? "every pair" : pairs, way);
  return text;
}

}  // namespace troupe::kernels
