// A TrainEngine of a CUDA device, or of the emulated one: state, sums and totals stay in its memory
// (model/device_trainer.hpp). One worker, which runs one slot at a time. For a reduction the 64-bit sums go
// through pinned memory to the host, bucket by bucket, and the rounded total comes back; or they stay on the
// devices, which add them bucket by bucket in a group of their own. Either way the node's own sum stays
// intact.
#pragma once

#include "actors/train_engine.hpp"
#include "comm/device_group.hpp"
#include "kernels/accumulator.hpp"
#include "model/device_checksums.hpp"
#include "model/device_trainer.hpp"

namespace troupe::actors {

// Two streams of one device: of the worker, and of the thread that reduces and takes snapshots meanwhile.
struct EngineDevice {
  std::unique_ptr<kernels::CudaStream> work, copies;
  std::unique_ptr<comm::DeviceGroup> group;
  std::string numerics;  // describes it: the same words, the same bits
};

class DeviceEngine final : public TrainEngine {
 public:
  // REQUIRES job.model with vocabulary and ids filled in, job.sum = exact, and a state of that model on the
  // host. `device` may come without a group. Throws Error(out_of_memory) that says what would fit.
  DeviceEngine(EngineDevice device, config::JobConfig job, scheduler::SlotPlan plan,
               std::unique_ptr<model::Model> model, const model::TrainState& state);

  const model::TrainState& state() const override { return trainer_.state(); }
  void replace_state(model::TrainState state) override;
  bool holds(const model::TrainState& state) const override;
  uint32_t workers() const override { return 1; }
  std::string numerics() const override { return device_.numerics; }

  void open_worker(uint32_t) override {}
  kernels::Stream& stream(uint32_t) override { return *device_.work; }

  comm::ExactReduction exact_reduction() override;
  comm::FloatReduction float_reduction() override;
  bool exact() const override { return true; }
  void fetch_sum(int64_t begin, int64_t end) override;
  comm::DeviceGroup* group() override { return device_.group.get(); }
  comm::SumMeta reduce_in_group(size_t members, comm::Deadline deadline) override;
  const kernels::RoundedTotal& total() override;
  void set_total(kernels::RoundedTotal total) override;

  std::shared_ptr<SharedWork> verify_work() override;
  std::shared_ptr<SharedWork> measure_work(bool reduced) override;
  std::shared_ptr<SharedWork> pack_work() override;

  model::TrainState snapshot() override;
  std::vector<MemoryRegion> memory_map() const override;

 private:
  model::TrainState& mutable_state() override { return trainer_.state(); }
  kernels::LossSums train(uint32_t, uint32_t slot, const Batch& batch, uint32_t& flags) override;
  kernels::LossSums evaluate(uint32_t, const Batch& batch) override;
  uint64_t hash_of_sum() override;
  void close_worker(uint32_t) override {}
  std::shared_ptr<SharedWork> clear_sums_work() override;
  std::shared_ptr<SharedWork> update_work() override;

  comm::SumMeta add_in_group(const comm::SumMeta& own, size_t members, comm::Deadline deadline);

  EngineDevice device_;
  model::DeviceTrainer trainer_;
  model::DeviceChecksums checksums_;
  std::unique_ptr<kernels::HugeArray<int64_t>> sum_on_host_;  // from the first reduction on
  kernels::Buffer bucket_;                                    // on the device, from the first in a group on
  kernels::RoundedTotal total_;                               // on the host
  bool total_is_on_host_ = false, total_is_on_device_ = false;
};

}  // namespace troupe::actors
