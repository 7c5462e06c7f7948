// A TrainEngine of the CPU: one stream and arena a worker, all of which fold into one accumulator; commits
// are cut in ranges that the workers share.
#pragma once

#include "actors/engines/train_engine.hpp"
#include "kernels/accumulator.hpp"
#include "model/state_checksums.hpp"

namespace troupe::actors {

class CpuEngine final : public TrainEngine {
 public:
  // REQUIRES job.model with vocabulary and ids filled in, and a state of that model.
  CpuEngine(std::shared_ptr<kernels::Backend> backend, config::JobConfig job, scheduler::SlotPlan plan,
            std::unique_ptr<model::Model> model, model::TrainState state, uint32_t workers);
  ~CpuEngine() override;

  const model::TrainState& state() const override { return state_; }
  void replace_state(model::TrainState state) override;
  bool holds(const model::TrainState& state) const override;
  uint32_t workers() const override { return uint32_t(workers_.size()); }
  std::string numerics() const override { return backend_->description(); }

  void open_worker(uint32_t worker) override;
  kernels::Stream& stream(uint32_t worker) override;

  comm::ExactReduction exact_reduction() override;
  comm::FloatReduction float_reduction() override;
  bool exact() const override { return exact_ != nullptr; }
  bool sum_grows() const override { return exact(); }
  void fetch_sum(int64_t, int64_t) override {}  // it lies where the ring reads it
  const kernels::RoundedTotal& total() override { return total_; }
  void set_total(kernels::RoundedTotal total) override;

  std::shared_ptr<SharedWork> verify_work() override;
  std::shared_ptr<SharedWork> measure_work(bool reduced) override;
  std::shared_ptr<SharedWork> pack_work() override;

  model::TrainState snapshot() override;
  std::vector<MemoryRegion> memory_map() const override;

 private:
  struct Worker;
  model::TrainState& mutable_state() override { return state_; }
  kernels::LossSums train(uint32_t worker, uint32_t slot, const Batch& batch, uint32_t& flags) override;
  kernels::LossSums evaluate(uint32_t worker, const Batch& batch) override;
  uint64_t hash_of_sum(uint32_t) override;
  void close_worker(uint32_t worker) override;
  std::shared_ptr<SharedWork> clear_sums_work() override;
  std::shared_ptr<SharedWork> update_work() override;
  Worker& fitted(uint32_t worker, const Batch& batch, bool training);
  void round_range(int64_t range);
  void clear_range(int64_t range);
  void apply_checked(kernels::Stream& stream, int64_t range);

  std::shared_ptr<kernels::Backend> backend_;
  model::TrainState state_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::unique_ptr<kernels::ExactAccumulator> exact_;  // one of the two
  std::unique_ptr<kernels::FloatAccumulator> float_;
  kernels::RoundedTotal total_;
  model::StateChecksums checksums_;
  std::vector<size_t> pack_order_;  // parameters that are packed, largest first
};

}  // namespace troupe::actors
