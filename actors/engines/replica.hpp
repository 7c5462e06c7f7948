// One device of a node: its copy of the state with checksums, and what was folded there of the step's sum.
// All replicas of a node apply the same totals, so that their copies stay the same bits. One thread at a
// time, but for what goes by way of copies(); errors name the device.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/device_checksums.hpp"
#include "model/device_trainer.hpp"

namespace troupe::actors {

// Two streams of one device: of who runs its slots and commits, and of the thread that reduces and takes
// snapshots meanwhile.
struct ReplicaDevice {
  std::string name;  // for people
  std::unique_ptr<kernels::CudaStream> work, copies;
};

class Replica {
 public:
  // From a state on the host. The model outlives it. Throws Error(out_of_memory) that says what would fit.
  Replica(ReplicaDevice device, const model::Model& model, const model::StepOptions& options,
          const model::TrainState& from);

  const std::string& name() const { return device_.name; }
  kernels::CudaStream& work() { return *device_.work; }
  kernels::CudaStream& copies() const { return *device_.copies; }
  model::DeviceTrainer& trainer() { return trainer_; }
  const model::TrainState& state() const { return trainer_.state(); }

  kernels::LossSums train(const Batch& batch, uint32_t slot, uint32_t& flags,
                          const model::DeviceTrainer::Whole& whole);
  kernels::LossSums evaluate(const Batch& batch);
  void load(const model::TrainState& from);
  bool holds(const model::TrainState& on_host) const;  // by way of copies()

  // What has changed since it was written, in words; nullopt: nothing has.
  std::optional<std::string> check_weights() const;
  std::optional<std::string> check_copy(const model::TrainState& on_host) const;
  // The same of what AdamW reads; then by the total that is there. A skipped step changes nothing.
  std::optional<std::string> update(const model::StepPlan& plan);
  // What is not as the other has it, though both were written alike.
  std::optional<std::string> difference(const Replica& other) const;

  // Waits for what a reduction that was given up has left on copies(): it may round into the total.
  void settle() { copies().synchronize(); }

  // Device memory for the sum of one bucket; valid until it is asked for more. The second copies elements
  // [first, first + count) of the own sum there, in the stream's order. Also while a slot runs.
  int64_t* bucket(int64_t count);
  int64_t* copy_to_bucket(kernels::CudaStream& stream, int64_t first, int64_t count);

 private:
  std::optional<std::string> here(std::optional<std::string> what) const;

  ReplicaDevice device_;
  model::DeviceTrainer trainer_;
  model::DeviceChecksums checksums_;
  kernels::Buffer bucket_;
};

using Replicas = std::vector<std::unique_ptr<Replica>>;  // of a node: one at least

}  // namespace troupe::actors
