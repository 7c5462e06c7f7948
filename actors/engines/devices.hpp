// The devices that nodes are told to train on. CUDA, and whether the program was built with it, stays behind
// this.
#pragma once

#include <memory>
#include <string>

#include "actors/config/device.hpp"
#include "actors/engines/train_engine.hpp"

namespace troupe::actors {

// What is wanted, on this machine: of "cuda:all" the GPUs that it has. Throws Error(device) when it cannot be
// used here: a program without CUDA, a machine without a GPU or driver, a GPU that it does not have. The CPU
// always can.
config::Devices find_devices(config::Devices wanted);

// For people: the GPUs of this machine, and how those of a node are joined. Throw Error(device).
std::string describe_gpus();
std::string describe_topology(const config::Devices& devices);

// An engine of actors/engines/device_engine.hpp from a state on the host. REQUIRES what find_devices
// returned, and not the CPU. Throws Error(device) also for GPUs that are not alike, Error(usage) for a sum
// that is not exact, and Error(out_of_memory).
std::unique_ptr<TrainEngine> make_device_engine(const config::Devices& devices, config::JobConfig job,
                                                scheduler::SlotPlan plan, std::unique_ptr<model::Model> model,
                                                const model::TrainState& state);

}  // namespace troupe::actors
