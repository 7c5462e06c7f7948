#include "actors/engines/device_engine.hpp"

#include <algorithm>
#include <array>

#include "kernels/base/hash.hpp"

namespace troupe::actors {

namespace {

model::StepOptions options_of(const config::JobConfig& job) {
  return {uint64_t(job.seed), int(job.slots), int(job.bits), config::resolved_optimizer(job)};
}

Replicas make_replicas(std::vector<ReplicaDevice> devices, const model::Model& model,
                       const config::JobConfig& job, const model::TrainState& state) {
  TROUPE_CHECK(!devices.empty() && job.sum == config::SumKind::exact);
  Replicas replicas;
  for (ReplicaDevice& device : devices)
    replicas.push_back(std::make_unique<Replica>(std::move(device), model, options_of(job), state));
  return replicas;
}

std::shared_ptr<SharedWork> in_one_piece(std::function<void()> body) {
  return std::make_shared<SharedWork>(1, [body = std::move(body)](kernels::Stream&, int64_t) { body(); });
}

std::shared_ptr<SharedWork> no_work() {
  return std::make_shared<SharedWork>(0, SharedWork::Body());
}

constexpr int64_t kNoSlot = -1;

// Stands for a slot of a step, or for a member that is at it.
uint64_t mark_of(int64_t step, int64_t slot) {
  const std::array<int64_t, 2> words = {step, slot};
  return checksum64(words.data(), sizeof words);
}

}  // namespace

DeviceEngine::DeviceEngine(EngineDevices devices, config::JobConfig job, scheduler::SlotPlan plan,
                           std::unique_ptr<model::Model> model, const model::TrainState& state)
    : TrainEngine(std::move(job), plan, std::move(model)),
      numerics_(std::move(devices.numerics)),
      slots_(plan),
      replicas_(make_replicas(std::move(devices.all), this->model(), this->job(), state)),
      sums_(replicas_, std::move(devices.inside), layout()),
      group_(std::move(devices.group)) {
  total_.resize(layout());
}

std::vector<std::string> DeviceEngine::devices() const {
  std::vector<std::string> names;
  for (const auto& replica : replicas_) names.push_back(replica->name());
  return names;
}

void DeviceEngine::replace_state(model::TrainState state) {
  for (const auto& replica : replicas_) replica->load(state);
}

bool DeviceEngine::holds(const model::TrainState& state) const {
  return std::all_of(replicas_.begin(), replicas_.end(),
                     [&](const auto& replica) { return replica->holds(state); });
}

void DeviceEngine::counters_moved() {
  for (const auto& replica : replicas_)
    if (replica != replicas_.front()) replica->trainer().state().copy_counters(state());
}

kernels::LossSums DeviceEngine::train(uint32_t worker, uint32_t slot, const Batch& batch, uint32_t& flags) {
  return replicas_.at(worker)->train(batch, slot, flags, [&](int64_t offset) {
    mutable_progress().reached(slot, layout().block_at(offset));
  });
}

kernels::LossSums DeviceEngine::evaluate(uint32_t worker, const Batch& batch) {
  return replicas_.at(worker)->evaluate(batch);
}

uint64_t DeviceEngine::hash_of_sum(uint32_t worker) {
  return replicas_.at(worker)->trainer().hash_of_sum();
}

kernels::RoundOptions DeviceEngine::rounding() const {
  return {int(job().bits), model::round_key(uint64_t(job().seed), state().step)};
}

// The ring overwrites the total on the host, which is that of the step before until then.
comm::ExactReduction DeviceEngine::exact_reduction() {
  if (sum_on_host_ == nullptr)
    sum_on_host_ = std::make_unique<kernels::HugeArray<int64_t>>(layout().elements());
  total_is_on_host_ = true;
  total_is_on_devices_ = false;
  comm::ExactReduction reduction;
  reduction.step = state().step;
  reduction.layout = &layout();
  reduction.accumulator = std::as_const(*sum_on_host_).span();
  reduction.total = &total_;
  reduction.rounding = rounding();
  return reduction;
}

comm::FloatReduction DeviceEngine::float_reduction() {
  TROUPE_CHECK(false, "a device adds exact sums alone");
  return {};
}

void DeviceEngine::fetch_sum(int64_t begin, int64_t end) {
  if (begin == end) return;
  const int64_t offset = layout().block(begin).offset, count = layout().elements_in(begin, end);
  sums_.fetch(offset, count, sum_on_host_->span().data() + offset);
}

void DeviceEngine::add_in_group(size_t bucket, comm::Deadline deadline) {
  total_is_on_host_ = total_is_on_devices_ = false;
  sums_.add_in(*group_, bucket, rounding(), deadline);
}

// The members' own steps would not do: one at s - 1 and one at s + 1 come to the sum of two at s.
SlotTally DeviceEngine::slot_tally(size_t members) const {
  const int64_t step = state().step;
  const uint64_t of_member = mark_of(step, kNoSlot);
  SlotTally tally{of_member, uint64_t(members) * of_member};
  for (uint32_t slot = 0; slot < slots_.slots(step); ++slot) {
    const uint64_t mark = mark_of(step, slot);
    scheduler::SlotSet one;
    one.insert(slot);
    tally.whole += mark;
    if (progress().wait(one, 0, std::chrono::milliseconds(0))) tally.own += mark;
  }
  return tally;
}

comm::SumMeta DeviceEngine::finish_in_group(size_t members, comm::Deadline deadline) {
  const comm::SumMeta sum = sums_.finish_in(*group_, own_sum(), slot_tally(members), deadline);
  total_is_on_devices_ = true;
  return sum;
}

const kernels::RoundedTotal& DeviceEngine::total() {
  if (!total_is_on_host_) total_ = first().trainer().total().to_host(first().copies());
  total_is_on_host_ = true;
  return total_;
}

void DeviceEngine::set_total(kernels::RoundedTotal total) {
  check_shape(total);
  total_ = std::move(total);
  total_is_on_host_ = true;
  total_is_on_devices_ = false;
}

// Each item is one device's, whichever worker takes it: no slot runs meanwhile.
std::shared_ptr<SharedWork> DeviceEngine::on_each(std::function<void(Replica&)> body) {
  return std::make_shared<SharedWork>(
      int64_t(replicas_.size()),
      [this, body = std::move(body)](kernels::Stream&, int64_t item) { body(*replicas_[size_t(item)]); });
}

std::shared_ptr<SharedWork> DeviceEngine::verify_work() {
  return on_each([this](Replica& replica) { note(replica.check_weights()); });
}

std::shared_ptr<SharedWork> DeviceEngine::clear_sums_work() {
  return on_each([](Replica& replica) { replica.trainer().clear_sum(); });
}

// Of all slots, since this node has them all.
void DeviceEngine::round_own() {
  for (const auto& replica : replicas_) replica->settle();
  if (replicas_.size() == 1)
    first().trainer().round_sum();
  else
    sums_.round(rounding());
  total_is_on_host_ = false;
  total_is_on_devices_ = true;
}

// One device measures for all: update() and pack_work() see to it that the others have the same total.
std::shared_ptr<SharedWork> DeviceEngine::measure_work(bool reduced) {
  if (!reduced || total_is_on_devices_)
    return in_one_piece([this, reduced] {
      if (!reduced) round_own();
      first().trainer().measure(measures());
    });
  total_is_on_devices_ = true;
  return on_each([this](Replica& replica) {
    replica.settle();
    replica.trainer().set_total(total_);
    if (&replica == &first()) replica.trainer().measure(measures());
  });
}

std::shared_ptr<SharedWork> DeviceEngine::update_work() {
  return on_each([this](Replica& replica) { note(replica.update(step_plan())); });
}

// Done with the update. Whether all devices have come to the same state is asked of its checksums.
std::shared_ptr<SharedWork> DeviceEngine::pack_work() {
  if (replicas_.size() == 1) return no_work();
  return in_one_piece([this] {
    for (const auto& replica : replicas_) note(replica->difference(first()));
  });
}

model::TrainState DeviceEngine::snapshot() {
  model::TrainState copy = first().trainer().copy_state(first().copies());
  note(first().check_copy(copy));
  require_sound();
  return copy;
}

// A GPU's memory is not this process's; the emulated device's is.
std::vector<MemoryRegion> DeviceEngine::memory_map() const {
  std::vector<MemoryRegion> regions;
  if (state().weights.device().kind != kernels::DeviceKind::cpu) return regions;
  for (const auto& replica : replicas_) {
    const model::TrainState& state = replica->state();
    regions.push_back({"weights", state.weights.data(), state.weights.bytes()});
    regions.push_back({"moments", state.moment1.data(), state.moment1.bytes()});
    regions.push_back({"moments", state.moment2.data(), state.moment2.bytes()});
    regions.push_back({"packed", state.packed.memory.data(), state.packed.memory.bytes()});
  }
  return regions;
}

}  // namespace troupe::actors
