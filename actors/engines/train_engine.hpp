// The numbers of a node: the state x, the sum of the current step, its total. It runs slots, hands out the
// step's sum, and applies the total; on which device is the affair of cpu_engine.hpp and device_engine.hpp,
// and shows to no role. No actors, no messages, no clock.
//
// A step goes: run_slot on any workers at once -> verify_work, then a reduction by one thread (not needed
// when one node holds every slot), which may be fed before, where sum_grows() -> measure_work, apply_work,
// pack_work, each by all workers, one work after another -> finish_commit. The weights are read-only between
// commits.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "actors/config/job.hpp"
#include "actors/engines/shared_work.hpp"
#include "actors/engines/slot_progress.hpp"
#include "comm/ring.hpp"
#include "model/loss_totals.hpp"
#include "model/model.hpp"
#include "model/optimizer.hpp"
#include "model/state.hpp"
#include "scheduler/protocol.hpp"

namespace troupe::comm {
class DeviceGroup;
}

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

// Memory of this process, for a drill that changes a bit of it.
struct MemoryRegion {
  const char* what = "";  // "weights", "moments", "packed"
  const void* data = nullptr;
  size_t bytes = 0;
};

class TrainEngine {
 public:
  virtual ~TrainEngine() = default;
  TrainEngine(const TrainEngine&) = delete;
  TrainEngine& operator=(const TrainEngine&) = delete;

  const config::JobConfig& job() const { return job_; }
  const model::Model& model() const { return *model_; }
  // Counters, and arrays that lie on the engine's device.
  virtual const model::TrainState& state() const = 0;
  std::string chain() const;  // 32 bytes: names the state before the current step
  // Takes a state that lies on the host, and packs it. REQUIRES that nothing runs.
  virtual void replace_state(model::TrainState state) = 0;
  // Whether the arrays are those of a state on the host, byte by byte.
  virtual bool holds(const model::TrainState& state) const = 0;
  virtual uint32_t workers() const = 0;
  virtual std::string numerics() const = 0;  // what computes here: the same words, the same bits

  // On the worker's own thread, before its first slot.
  virtual void open_worker(uint32_t worker) = 0;
  virtual kernels::Stream& stream(uint32_t worker) = 0;
  // Forward and backward of a training slot into the step's sum, or forward of a held-out one.
  void run_slot(uint32_t worker, int64_t step, uint32_t slot, const Batch& batch);

  // Finds out what this machine makes of a slot: a hash of its gradient and losses, leaving nothing behind.
  // The same on all nodes that could compute together, so it is asked of all with the same weights and batch.
  // On the thread of the caller; REQUIRES that nothing runs and nothing is folded. Throws Error(device) when
  // the devices of this node do not agree.
  void probe(const Batch& batch);
  const std::string& probed() const { return probed_; }  // 32 hexadecimal digits; empty: not yet

  comm::SumMeta own_sum() const;
  // Without contributions. What comes of it is the total() of the step.
  virtual comm::ExactReduction exact_reduction() = 0;  // REQUIRES the exact sum
  virtual comm::FloatReduction float_reduction() = 0;
  virtual bool exact() const = 0;
  // Whether blocks of the sum are final, and may be read, while slots run: as soon as progress() says so.
  virtual bool sum_grows() const { return false; }
  const SlotProgress& progress() const { return progress_; }
  // Before the ring reads blocks [begin, end) of a reduction. On the thread that reduces.
  virtual void fetch_sum(int64_t begin, int64_t end) = 0;
  // How devices add their sums without the ring; null where there is no such way. The group is joined by the
  // caller; then all members add the same buckets, in their order, each when its blocks are final, and at the
  // end their integers: what finish_in_group() returns is the sum of all members', and total() is that of the
  // step. On the thread that reduces. Throw like DeviceGroup.
  virtual comm::DeviceGroup* group() { return nullptr; }
  virtual std::span<const comm::Bucket> group_buckets() const { return {}; }
  virtual void add_in_group(size_t bucket, comm::Deadline deadline);
  virtual comm::SumMeta finish_in_group(size_t members, comm::Deadline deadline);
  // The rounded total of the last reduction or commit: R of that step. On the thread that reduces.
  virtual const kernels::RoundedTotal& total() = 0;
  // One that came from elsewhere, to be committed as `reduced`. Throws Error(corrupt) when it is of another
  // shape.
  virtual void set_total(kernels::RoundedTotal total) = 0;

  // Before the sum counts: whether the weights are still what was written when the step began. To be shared
  // while no slot runs; then require_sound() throws Error(corrupt) that names the tensor which has changed in
  // memory.
  virtual std::shared_ptr<SharedWork> verify_work() = 0;
  void require_sound() const;

  // Forgets what has been folded. REQUIRES that no slot runs.
  std::shared_ptr<SharedWork> clear_work();

  // The works of the commit of the current step, to be shared in this order with a barrier after each. They
  // check weights and moments once more as they read them; finish_commit() throws like require_sound(). `sum`
  // is of all slots; `reduced`: the ring has rounded the total (exact) or added the floats up.
  virtual std::shared_ptr<SharedWork> measure_work(bool reduced) = 0;
  std::shared_ptr<SharedWork> apply_work(const comm::SumMeta& sum);  // decides, applies, clears the sums
  virtual std::shared_ptr<SharedWork> pack_work() = 0;
  StepOutcome finish_commit(const comm::SumMeta& sum);

  // A copy of the state on the host, checked: what others get of it, or a disk, is what was written here.
  // While slots run, on the thread that reduces. Throws like require_sound().
  virtual model::TrainState snapshot() = 0;
  std::string weights_digest(const model::TrainState& on_host) const {
    return model::weights_digest(model_->parameters(), on_host.weight_data());
  }
  // Where the state lies in this process; empty where it does not.
  virtual std::vector<MemoryRegion> memory_map() const = 0;

 protected:
  TrainEngine(config::JobConfig job, scheduler::SlotPlan plan, std::unique_ptr<model::Model> model);

  const kernels::BlockLayout& layout() const { return model_->parameters().layout(); }
  const model::OptimizerConfig& optimizer() const { return optimizer_; }
  const model::StepPlan& step_plan() const { return step_plan_; }  // of the commit under way
  model::CommitMeasures& measures() { return measures_; }          // that measure_work() fills in
  // Something has changed by itself: require_sound() will throw. Any thread.
  void note(const std::optional<std::string>& changed);
  SlotProgress& mutable_progress() { return progress_; }
  void check_shape(const kernels::RoundedTotal& total) const;  // Throws Error(corrupt)

 private:
  virtual model::TrainState& mutable_state() = 0;
  virtual void counters_moved() {}  // those of mutable_state() are now of the next step
  // By name, for what they compute to be compared: one of each worker, or of all.
  virtual std::vector<std::string> devices() const { return {"the CPU"}; }
  virtual kernels::LossSums train(uint32_t worker, uint32_t slot, const Batch& batch, uint32_t& flags) = 0;
  virtual kernels::LossSums evaluate(uint32_t worker, const Batch& batch) = 0;
  virtual uint64_t hash_of_sum(uint32_t worker) = 0;
  virtual void close_worker(uint32_t worker) = 0;
  virtual std::shared_ptr<SharedWork> clear_sums_work() = 0;
  virtual std::shared_ptr<SharedWork> update_work() = 0;  // by step_plan(); clears the sums too
  std::string probe_on(uint32_t worker, const Batch& batch);
  void forget_losses();

  config::JobConfig job_;
  model::OptimizerConfig optimizer_;
  scheduler::SlotPlan plan_;
  std::unique_ptr<model::Model> model_;

  mutable std::mutex sums_mutex_;  // guards the three below while slots run
  model::LossTotals training_, evaluation_;
  uint32_t flags_ = 0;
  std::string probed_;
  SlotProgress progress_;  // of the slots in the sum

  mutable std::mutex changed_mutex_;
  std::optional<std::string> changed_;  // what was found to have changed by itself, first

  model::CommitMeasures measures_;
  model::StepPlan step_plan_;
};

// How a SUM's integers travel: the training loss in the fields of that name, the held-out one in `more` and
// `samples`.
comm::SumMeta to_meta(const model::LossTotals& training, const model::LossTotals& evaluation, uint32_t flags);
model::LossTotals training_totals(const comm::SumMeta& sum);
model::LossTotals evaluation_totals(const comm::SumMeta& sum);

}  // namespace troupe::actors
