// The numbers of a node: the state x, the accumulator of the current step, and one stream and arena a worker.
// It runs slots, hands out the step's sum, and applies the total. No actors, no messages, no clock.
//
// A step goes: run_slot on any workers at once -> reduction() by one thread while no slot runs (not needed
// when one node holds every slot) -> begin_commit, then each of the commit's works by all workers, one work
// after another -> finish_commit. The weights are read-only between commits.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "actors/config/job.hpp"
#include "actors/shared_work.hpp"
#include "comm/ring.hpp"
#include "kernels/accumulator.hpp"
#include "model/loss_totals.hpp"
#include "model/model.hpp"
#include "model/optimizer.hpp"
#include "model/state.hpp"
#include "model/state_checksums.hpp"
#include "scheduler/protocol.hpp"

namespace troupe::actors {

// What a committed step was, for reports.
struct StepOutcome {
  model::StepPlan plan;
  model::LossTotals training;
  std::optional<model::LossTotals> evaluation;  // of the weights before this step
  int64_t best_step = -1;                       // the evaluation with the lowest loss so far
  int64_t skipped = 0;                          // steps so far
  int64_t target_tokens = 0;                    // so far
};

class TrainEngine {
 public:
  // REQUIRES job.model with vocabulary and ids filled in, and a packed state of that model.
  TrainEngine(std::shared_ptr<kernels::Backend> backend, config::JobConfig job, scheduler::SlotPlan plan,
              std::unique_ptr<model::Model> model, model::TrainState state, uint32_t workers);
  ~TrainEngine();

  const config::JobConfig& job() const { return job_; }
  const model::Model& model() const { return *model_; }
  const model::TrainState& state() const { return state_; }
  kernels::Backend& backend() const { return *backend_; }
  uint32_t workers() const { return uint32_t(workers_.size()); }
  std::string chain() const;                    // 32 bytes: names the state before the current step
  void replace_state(model::TrainState state);  // REQUIRES that nothing runs; packed by the caller

  // On the worker's own thread, before its first slot.
  void open_worker(uint32_t worker);
  kernels::Stream& stream(uint32_t worker);
  // Forward and backward of a training slot into the accumulator, or forward of a held-out one. Returns its
  // flags.
  uint32_t run_slot(uint32_t worker, int64_t step, uint32_t slot, const Batch& batch);

  // Finds out what this machine makes of a slot: a hash of its gradient and losses, leaving nothing behind.
  // The same on all nodes that could compute together, so it is asked of all with the same weights and batch.
  // On the thread of the caller; REQUIRES that nothing runs and nothing is folded.
  void probe(const Batch& batch);
  const std::string& probed() const { return probed_; }  // 32 hexadecimal digits; empty: not yet

  comm::SumMeta own_sum() const;
  comm::ExactReduction exact_reduction();  // without contributions; REQUIRES the exact sum
  comm::FloatReduction float_reduction();
  bool exact() const { return exact_ != nullptr; }
  // The rounded total of the last reduction or commit: R of that step.
  const kernels::RoundedTotal& total() const { return total_; }
  // One that came from elsewhere, to be committed as `reduced`. Throws Error(corrupt) when it is of another
  // shape.
  void set_total(kernels::RoundedTotal total);

  // Before the sum counts: whether the weights are still what was written when the step began. To be shared
  // while no slot runs; then require_sound() throws Error(corrupt) that names the tensor which has changed in
  // memory.
  std::shared_ptr<SharedWork> verify_work();
  void require_sound() const;

  // Forgets what has been folded. REQUIRES that no slot runs.
  std::shared_ptr<SharedWork> clear_work();

  // The works of the commit of the current step, to be shared in this order with a barrier after each. They
  // check weights and moments once more as they read them; finish_commit() throws like require_sound(). `sum`
  // is of all slots; `reduced`: the ring has rounded the total (exact) or added the floats up.
  std::shared_ptr<SharedWork> measure_work(bool reduced);
  std::shared_ptr<SharedWork> apply_work(
      const comm::SumMeta& sum);  // decides, then applies and clears the sums
  std::shared_ptr<SharedWork> pack_work();
  StepOutcome finish_commit(const comm::SumMeta& sum);

  // A copy of the state, checked: what others get of it, or a disk, is what was written here. Throws like
  // require_sound().
  model::TrainState snapshot();
  std::string weights_digest(const model::TrainState& state) const {
    return model::weights_digest(model_->parameters(), state.weight_data());
  }

 private:
  struct Worker;
  void fit_arena(Worker& worker, const Batch& batch, bool training);
  kernels::LossSums train(Worker& worker, int64_t step, uint32_t slot, const Batch& batch, uint32_t& flags);
  void round_range(int64_t range);
  void clear_range(int64_t range);
  void apply_checked(kernels::Stream& stream, int64_t range);
  void note(const std::optional<std::string>& changed);

  std::shared_ptr<kernels::Backend> backend_;
  config::JobConfig job_;
  model::OptimizerConfig optimizer_;
  scheduler::SlotPlan plan_;
  std::unique_ptr<model::Model> model_;
  model::TrainState state_;
  std::vector<std::unique_ptr<Worker>> workers_;

  std::unique_ptr<kernels::ExactAccumulator> exact_;  // one of the two
  std::unique_ptr<kernels::FloatAccumulator> float_;
  kernels::RoundedTotal total_;
  mutable std::mutex sums_mutex_;  // guards the three below while slots run
  model::LossTotals training_, evaluation_;
  uint32_t flags_ = 0;

  std::string probed_;

  model::StateChecksums checksums_;
  mutable std::mutex changed_mutex_;
  std::optional<std::string> changed_;  // what was found to have changed by itself, first

  model::CommitMeasures measures_;
  model::StepPlan step_plan_;
  std::vector<size_t> pack_order_;  // parameters that are packed, largest first
};

// How a SUM's integers travel: the training loss in the fields of that name, the held-out one in `more` and
// `samples`.
comm::SumMeta to_meta(const model::LossTotals& training, const model::LossTotals& evaluation, uint32_t flags);
model::LossTotals training_totals(const comm::SumMeta& sum);
model::LossTotals evaluation_totals(const comm::SumMeta& sum);

}  // namespace troupe::actors
