// The devices that nodes are told to train on. CUDA, and whether the program was built with it, stays behind
// this.
#pragma once

#include <memory>
#include <string>

#include "actors/config/device.hpp"
#include "actors/train_engine.hpp"

namespace troupe::actors {

// Throws Error(device) when it cannot be used here: a program without CUDA, a machine without a GPU or
// driver, a GPU that it does not have. The CPU always can.
void require_device(const config::Device& device);

// The GPUs of this machine, for people.
std::string describe_gpus();

// An engine of actors/device_engine.hpp from a state on the host. REQUIRES a device that is not the CPU.
// Throws like require_device, Error(usage) for a sum that is not exact, and Error(out_of_memory).
std::unique_ptr<TrainEngine> make_device_engine(const config::Device& device, config::JobConfig job,
                                                scheduler::SlotPlan plan, std::unique_ptr<model::Model> model,
                                                const model::TrainState& state);

}  // namespace troupe::actors
