// A TrainEngine of one or several CUDA devices, or of emulated ones: state, sums and totals stay in their
// memory (replica.hpp), one worker a device, each of which runs one slot at a time. The sums of the devices
// are added inside the node (device_sums.hpp). For a reduction with other nodes the node's sum goes through
// pinned memory to the host, bucket by bucket, and the rounded total comes back; or the devices of all nodes
// add in a group of their own. Either way each device's own sum stays intact.
#pragma once

#include "actors/engines/device_sums.hpp"
#include "actors/engines/replica.hpp"
#include "actors/engines/train_engine.hpp"
#include "comm/device_group.hpp"
#include "kernels/accumulator.hpp"

namespace troupe::actors {

struct EngineDevices {
  std::vector<ReplicaDevice> all;             // one at least, all of one kind
  std::string numerics;                       // describes each: the same words, the same bits
  std::unique_ptr<comm::DeviceGroup> inside;  // of these alone; null: the host adds, or there is one device
  std::unique_ptr<comm::DeviceGroup> group;  // of these with those of other nodes; null: there is no such way
};

class DeviceEngine final : public TrainEngine {
 public:
  // REQUIRES job.model with vocabulary and ids filled in, job.sum = exact, and a state of that model on the
  // host. Throws Error(out_of_memory) that says on which device, and what would fit.
  DeviceEngine(EngineDevices devices, config::JobConfig job, scheduler::SlotPlan plan,
               std::unique_ptr<model::Model> model, const model::TrainState& state);

  const model::TrainState& state() const override { return first().state(); }
  void replace_state(model::TrainState state) override;
  bool holds(const model::TrainState& state) const override;
  uint32_t workers() const override { return uint32_t(replicas_.size()); }
  std::string numerics() const override { return numerics_; }

  void open_worker(uint32_t) override {}
  kernels::Stream& stream(uint32_t worker) override { return replicas_.at(worker)->work(); }

  comm::ExactReduction exact_reduction() override;
  comm::FloatReduction float_reduction() override;
  bool exact() const override { return true; }
  bool sum_grows() const override { return true; }
  void fetch_sum(int64_t begin, int64_t end) override;
  comm::DeviceGroup* group() override { return group_.get(); }
  std::span<const comm::Bucket> group_buckets() const override { return sums_.buckets(); }
  void add_in_group(size_t bucket, comm::Deadline deadline) override;
  comm::SumMeta finish_in_group(size_t members, comm::Deadline deadline) override;
  const kernels::RoundedTotal& total() override;
  void set_total(kernels::RoundedTotal total) override;

  std::shared_ptr<SharedWork> verify_work() override;
  std::shared_ptr<SharedWork> measure_work(bool reduced) override;
  std::shared_ptr<SharedWork> pack_work() override;

  model::TrainState snapshot() override;
  std::vector<MemoryRegion> memory_map() const override;

 private:
  model::TrainState& mutable_state() override { return first().trainer().state(); }
  void counters_moved() override;
  std::vector<std::string> devices() const override;
  kernels::LossSums train(uint32_t worker, uint32_t slot, const Batch& batch, uint32_t& flags) override;
  kernels::LossSums evaluate(uint32_t worker, const Batch& batch) override;
  uint64_t hash_of_sum(uint32_t worker) override;
  void close_worker(uint32_t) override {}
  std::shared_ptr<SharedWork> clear_sums_work() override;
  std::shared_ptr<SharedWork> update_work() override;

  Replica& first() const { return *replicas_.front(); }
  kernels::RoundOptions rounding() const;
  SlotTally slot_tally(size_t members) const;  // of the slots that have been folded here
  void round_own();
  std::shared_ptr<SharedWork> on_each(std::function<void(Replica&)> body);  // of any worker

  std::string numerics_;
  scheduler::SlotPlan slots_;
  Replicas replicas_;
  DeviceSums sums_;
  std::unique_ptr<comm::DeviceGroup> group_;
  std::unique_ptr<kernels::HugeArray<int64_t>> sum_on_host_;  // from the first reduction on
  kernels::RoundedTotal total_;                               // on the host
  bool total_is_on_host_ = false, total_is_on_devices_ = false;
};

}  // namespace troupe::actors
