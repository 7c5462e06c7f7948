// Opens the devices that nodes are told to compute with. The only file of actors/ that knows whether the
// program was built with CUDA.
#pragma once

#include <string>

#include "actors/config/device.hpp"
#include "actors/device_engine.hpp"

namespace troupe::actors {

// Throws Error(device) when it cannot be used here: a program without CUDA, a machine without a GPU or
// driver, a GPU that it does not have. The CPU always can.
void require_device(const config::Device& device);

// REQUIRES a device that is not the CPU. Throws like require_device, and Error(out_of_memory).
DeviceStreams open_streams(const config::Device& device);
// Its part of a node's fingerprint: the same words, the same bits.
std::string numerics_of(const config::Device& device);

// The GPUs of this machine, for people.
std::string describe_gpus();

}  // namespace troupe::actors
