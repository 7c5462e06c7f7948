// Training steps on one thread, slots in order: the reference that the actors' many threads and nodes must
// equal bit for bit, used by tests, benchmarks and oracles.
#pragma once

#include <cstdint>
#include <functional>

#include "model/loss_totals.hpp"
#include "model/model.hpp"
#include "model/optimizer.hpp"
#include "model/state.hpp"

namespace troupe::model {

struct StepOptions {
  uint64_t seed = 0;
  int slots = 8;  // V
  int bits = kernels::kFullBits;
  OptimizerConfig optimizer;
};

// Keys of the stochastic rounding of narrow sums: of a slot's fold (kernels::FoldOptions) and of a step's
// total (kernels::RoundOptions).
uint64_t fold_key(uint64_t seed, int64_t step, uint32_t slot);
uint64_t round_key(uint64_t seed, int64_t step);

// The batch of (step, slot); called on the calling thread.
using BatchSource = std::function<Batch(int64_t step, uint32_t slot)>;

struct StepResult {
  LossTotals loss;
  StepPlan plan;
};

// Runs steps until state.step == end_step; calls `report` after each. REQUIRES packed weights.
void train_one_process(kernels::Backend& backend, const Model& model, const StepOptions& options,
                       const BatchSource& batches, int64_t end_step, TrainState& state,
                       const std::function<void(const StepResult&)>& report);

// Forward only over `slots` batches: loss without dropout.
LossTotals evaluate_one_process(kernels::Backend& backend, const Model& model, const WeightsView& weights,
                                const BatchSource& batches, int slots, float label_smoothing);

}  // namespace troupe::model
