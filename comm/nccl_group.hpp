// The DeviceGroup of NVIDIA GPUs: an NCCL communicator that never blocks its thread, watched with deadlines
// of our own. In programs built with TROUPE_NCCL alone.
#pragma once

#include <memory>

#include "comm/device_group.hpp"

namespace troupe::comm {

// Of GPU `device`. Throws Error(device).
std::unique_ptr<DeviceGroup> make_nccl_group(int device);

}  // namespace troupe::comm
