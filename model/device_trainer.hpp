// Training on one device from end to end: weights, moments, sums and totals stay there, slots run one after
// another, and a step's gradient never visits the host. A step gives the weights that model/step.hpp's commit
// gives for the same sums; the digest chain over totals is not kept. One thread.
#pragma once

#include <string>
#include <vector>

#include "kernels/cuda/accumulator.hpp"
#include "model/step.hpp"

namespace troupe::model {

class DeviceTrainer {
 public:
  // x(0) of model/state.hpp for `options.seed`. Stream and model outlive it. Throws Error(out_of_memory).
  DeviceTrainer(kernels::CudaStream& stream, const Model& model, const StepOptions& options);

  // Computes and commits the next step. A step with flags, without tokens or with a norm that is not finite
  // is skipped.
  StepResult step(const BatchSource& batches);
  // Forward and backward of one slot into `sink`, without a commit.
  kernels::LossSums run_slot(const Batch& batch, const SlotKey& key, kernels::GradientSink& sink);

  int64_t next_step() const { return counters_.step; }
  // Wait for the device. The flat f32 arrays, and model/state.hpp's weights_digest.
  std::vector<float> weights() const;
  std::string digest() const { return weights_digest(model_.parameters(), weights().data()); }
  // Bytes of device memory that the state, sums and totals take, without activations.
  size_t state_bytes() const;

 private:
  WeightsView view() const;
  void pack();
  void fit_arena(const Batch& batch);
  StepPlan commit(int64_t tokens, uint32_t flags);

  kernels::CudaStream& stream_;
  const Model& model_;
  StepOptions options_;
  TrainState counters_;  // step, updates and skipped; its arrays are those of the device
  kernels::Buffer sinusoids_;
  kernels::DeviceAccumulator sum_;
  kernels::DeviceTotal total_;
  std::unique_ptr<kernels::Arena> arena_;
};

}  // namespace troupe::model
