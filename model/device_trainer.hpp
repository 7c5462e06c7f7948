// Training on one device: the state x, the sum of a step and its total stay there, slots run one after
// another, and a gradient never visits the host. A step gives the weights that model/step.hpp's commit gives
// for the same sums. A slot's calls and a commit's are gathered (kernels/cuda/runtime.hpp). One thread at a
// time, but for what is said below; the state's arrays are read-only between commits, and so is the total.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/accumulator.hpp"
#include "model/step.hpp"

namespace troupe::model {

class DeviceTrainer {
 public:
  // From x(0) of model/state.hpp for `options.seed`, or from a state of the host. Stream and model outlive
  // it. Throws Error(out_of_memory) that says what would fit.
  DeviceTrainer(kernels::CudaStream& stream, const Model& model, const StepOptions& options);
  DeviceTrainer(kernels::CudaStream& stream, const Model& model, const StepOptions& options,
                const TrainState& from);

  // Computes and commits the next step. A step with flags, without tokens or with a norm that is not finite
  // is skipped.
  StepResult step(const BatchSource& batches);

  // --- the parts of a step, for who shares it with others; they wait for the device ---
  // Forward and backward of one slot into the step's sum; `flags` are the slot's.
  // While it runs, `whole` hears a few times, with ever lower offsets, that all of its gradients at this
  // offset or beyond have been folded.
  using Whole = std::function<void(int64_t offset)>;
  kernels::LossSums fold_slot(const Batch& batch, uint32_t slot, uint32_t& flags, const Whole& whole = {});
  kernels::LossSums evaluate_slot(const Batch& batch);  // forward, without dropout
  uint64_t hash_of_sum();
  void clear_sum();
  void round_sum();                                    // the total becomes that of the sum
  void set_total(const kernels::RoundedTotal& total);  // or one of all nodes' sums
  // Of the total. The hashes are of integers, and of this device's kind: kernels/cuda/checksum.hpp.
  void measure(CommitMeasures& measures);
  void update(const StepPlan& plan);  // weights, moments and packed weights; not the counters

  // Forward and backward of one slot into any sink.
  kernels::LossSums run_slot(const Batch& batch, const SlotKey& key, kernels::GradientSink& sink);

  // Counters, and arrays on the device.
  TrainState& state() { return state_; }
  const TrainState& state() const { return state_; }
  const kernels::DeviceAccumulator& sum() const { return sum_; }
  const kernels::DeviceTotal& total() const { return total_; }
  kernels::DeviceTotal& total() { return total_; }  // for who adds and rounds on the device by other means
  void load(const TrainState& from);                // of the host; packs

  // A copy in the host's memory, by way of any stream of the device and so on any thread.
  TrainState copy_state(kernels::CudaStream& stream) const;

  int64_t next_step() const { return state_.step; }
  // Wait for the device. The flat f32 arrays, and model/state.hpp's weights_digest.
  std::vector<float> weights() const;
  std::string digest() const { return weights_digest(model_.parameters(), weights().data()); }
  // Bytes of device memory that the state, sums and totals take, without activations.
  size_t state_bytes() const { return state_bytes(stream_, model_); }
  static size_t state_bytes(const kernels::CudaStream& stream, const Model& model);

 private:
  WeightsView view() const;
  void pack();
  void update_arrays(const kernels::AdamW& rule);
  void fit_arena(const Batch& batch, bool training);

  kernels::CudaStream& stream_;
  const Model& model_;
  StepOptions options_;
  TrainState state_;
  kernels::Buffer sinusoids_;
  kernels::DeviceAccumulator sum_;
  kernels::DeviceTotal total_;
  std::unique_ptr<kernels::Arena> arena_;
};

}  // namespace troupe::model
