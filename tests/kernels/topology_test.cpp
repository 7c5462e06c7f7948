// How GPUs are joined, told by a library that is made up.
#include "kernels/cuda/topology.hpp"

#include <string_view>
#include <vector>

#include <doctest/doctest.h>

using namespace troupe::kernels;

namespace {

int sessions = 0;  // that were begun and not ended
char gpu_handles[4];

int index_of(Nvml::Gpu gpu) {
  return int(static_cast<char*>(gpu) - gpu_handles);
}

// Four GPUs on buses a, b, c, d: NVLink joins a with b, and one PCIe switch c with d.
Nvml made_up() {
  Nvml nvml;
  nvml.start = [] { return ++sessions, 0; };
  nvml.end = [] { return --sessions, 0; };
  nvml.find = [](const char* bus, Nvml::Gpu* gpu) {
    if (bus[0] < 'a' || bus[0] > 'd') return 6;  // not found
    *gpu = &gpu_handles[bus[0] - 'a'];
    return 0;
  };
  nvml.joined = [](Nvml::Gpu a, Nvml::Gpu b, int way, int* status) {
    *status = way == 2 && index_of(a) + index_of(b) == 1 ? 0 : 5;
    return 0;
  };
  nvml.common_ancestor = [](Nvml::Gpu a, Nvml::Gpu b, int* level) {
    *level = index_of(a) + index_of(b) == 5 ? 10 : 50;
    return 0;
  };
  return nvml;
}

std::string describe(const std::vector<PlacedGpu>& gpus, const Nvml& nvml) {
  return describe_topology(
      gpus, [](size_t from, size_t to) { return from + to != 4; }, nvml);
}

}  // namespace

TEST_CASE("pairs of GPUs are named with what joins them") {
  const std::vector<PlacedGpu> gpus = {{"cuda:0", "a"}, {"cuda:1", "b"}, {"cuda:2", "c"}, {"cuda:3", "d"}};
  CHECK(describe(gpus, made_up()) ==
        "cuda:0 and cuda:1: NVLink, peer access; "
        "cuda:0 and cuda:2, cuda:0 and cuda:3, cuda:1 and cuda:2: different NUMA nodes, peer access; "
        "cuda:1 and cuda:3: different NUMA nodes, no peer access; "
        "cuda:2 and cuda:3: one PCIe switch, peer access");
  CHECK(describe({gpus[0], gpus[1]}, made_up()) == "every pair: NVLink, peer access");
  CHECK(describe({gpus[0], {"cuda:9", "z"}}, made_up()) ==
        "every pair: joined in an unknown way, peer access");
  CHECK(sessions == 0);
}

TEST_CASE("where NVML is missing or does not start, only peer access is known") {
  const std::vector<PlacedGpu> gpus = {{"cuda:0", "a"}, {"cuda:1", "b"}};
  const std::string unknown = "topology unknown, for want of NVML; every pair: peer access";
  const Nvml none = load_nvml("libtroupe-there-is-none.so.1");
  CHECK_FALSE(none.whole());
  CHECK(describe(gpus, none) == unknown);
  Nvml broken = made_up();
  broken.start = [] { return 9; };  // the driver is not loaded
  CHECK(describe(gpus, broken) == unknown);
  broken = made_up();
  broken.joined = nullptr;  // an older library
  CHECK(describe(gpus, broken) == unknown);
}
