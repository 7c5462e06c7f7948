// The DeviceGroup of NVIDIA GPUs: NCCL communicators, one a GPU of this process, that never block its thread,
// watched with deadlines of our own. In programs built with TROUPE_NCCL alone.
#pragma once

#include <memory>
#include <vector>

#include "comm/device_group.hpp"

namespace troupe::comm {

// Of these GPUs of this machine. Throws Error(device).
std::unique_ptr<DeviceGroup> make_nccl_group(std::vector<int> devices);

}  // namespace troupe::comm
