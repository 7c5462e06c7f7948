// The commit of a step, F: AdamW (Loshchilov & Hutter 2019) with clipping by global norm (Pascanu et al.
// 2013), cut in pieces that threads share. The result does not depend on who did which piece: ranges are
// fixed, and float reductions follow a fixed tree. Order of a commit, with a barrier between the lines:
//   measure_range      every range, any thread     (reads the total)
//   begin_step         one thread                  (norm, clipping, skip or not)
//   apply_range        every range, any thread     (weights and moments, in place)
//   pack_parameter     every parameter, any thread     (model/state.hpp)
//   finish_step        one thread                  (counters, digest chain)
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/exact_sum.hpp"
#include "model/schedule.hpp"
#include "model/state.hpp"

namespace troupe::model {

struct OptimizerConfig {
  float beta1 = 0.9f;
  float beta2 = 0.98f;
  float epsilon = 1e-9f;
  float weight_decay = 0;  // on parameters that decay (matrices and embeddings)
  float clip_norm = 1;     // of the mean gradient; 0: off
  float label_smoothing = 0.1f;
  ScheduleConfig schedule;

  bool operator==(const OptimizerConfig&) const = default;
};
void validate(const OptimizerConfig& config);

inline constexpr int64_t kRangeBlocks =
    512;  // blocks in a range: at most 512 KiB of mantissas, which a cache holds
int64_t commit_ranges(const kernels::BlockLayout& layout);

// What the first pass over a total leaves, an entry a range. Sized by its constructor; entries are written
// once each.
struct CommitMeasures {
  explicit CommitMeasures(const kernels::BlockLayout& layout);
  std::vector<double> square_sums;  // of the summed gradient, blocks added by a fixed tree
  std::vector<uint64_t> hashes;     // XXH3 of mantissas and shifts
};
void measure_range(kernels::Stream& stream, const kernels::BlockLayout& layout,
                   const kernels::RoundedTotal& total, int64_t range, CommitMeasures& measures);

struct StepPlan {
  int64_t step = 0;
  bool skipped =
      false;           // a flag, no token, or a norm that is not finite: weights and moments stay as they are
  uint32_t flags = 0;  // kernels::SumFlags of R(step)
  int64_t tokens = 0;
  double gradient_norm = 0;  // of the mean gradient, before clipping
  double learning_rate = 0;
  kernels::AdamW adamw;  // weight_decay as configured; apply_range clears it for parameters that do not decay
};
StepPlan begin_step(const OptimizerConfig& config, const TrainState& state, const CommitMeasures& measures,
                    int64_t tokens, uint32_t flags);

// A skipped plan does nothing here.
void apply_range(kernels::Stream& stream, const StepPlan& plan, const ParameterTable& table,
                 const kernels::RoundedTotal& total, int64_t range, const StateArrays& state);

// Advances counters and the chain: SHA-256(chain, step, flags, tokens, norm, rate, hashes of R). The weights
// are a function of x(0) and the R(s), so equal chains mean equal weights, at the price of hashing R once
// while it is hot.
void finish_step(const StepPlan& plan, const CommitMeasures& measures, TrainState& state);

// All of it on one thread: the reference.
StepPlan commit_step(kernels::Stream& stream, const OptimizerConfig& config, const Model& model,
                     const kernels::RoundedTotal& total, int64_t tokens, uint32_t flags, TrainState& state);

}  // namespace troupe::model
