#include "actors/device_engine.hpp"

#include <algorithm>
#include <array>

namespace troupe::actors {

using model::DeviceChecksums;

namespace {

constexpr int64_t kBucketElements = int64_t{1} << 21;
constexpr int64_t kIntegers = 11;  // of a SUM, beside its gradient

model::StepOptions options_of(const config::JobConfig& job) {
  return {uint64_t(job.seed), int(job.slots), int(job.bits), config::resolved_optimizer(job)};
}

// For the one worker.
std::shared_ptr<SharedWork> in_one_piece(std::function<void()> body) {
  return std::make_shared<SharedWork>(1, [body = std::move(body)](kernels::Stream&, int64_t) { body(); });
}

}  // namespace

DeviceEngine::DeviceEngine(EngineDevice device, config::JobConfig job, scheduler::SlotPlan plan,
                           std::unique_ptr<model::Model> model, const model::TrainState& state)
    : TrainEngine(std::move(job), plan, std::move(model)),
      device_(std::move(device)),
      trainer_(*device_.work, this->model(), options_of(this->job()), state),
      checksums_(this->model().parameters(), trainer_.state()) {
  TROUPE_CHECK(this->job().sum == config::SumKind::exact);
  trainer_.clear_sum();
  checksums_.seal(*device_.work, trainer_.state());
  total_.resize(layout());
}

void DeviceEngine::replace_state(model::TrainState state) {
  trainer_.load(state);
  checksums_.seal(*device_.work, trainer_.state());
}

bool DeviceEngine::holds(const model::TrainState& state) const {
  return model::same_arrays(trainer_.copy_state(*device_.copies), state);
}

kernels::LossSums DeviceEngine::train(uint32_t, uint32_t slot, const Batch& batch, uint32_t& flags) {
  return trainer_.fold_slot(batch, slot, flags);
}

kernels::LossSums DeviceEngine::evaluate(uint32_t, const Batch& batch) {
  return trainer_.evaluate_slot(batch);
}

uint64_t DeviceEngine::hash_of_sum() {
  return trainer_.hash_of_sum();
}

// The ring overwrites the total on the host, which is that of the step before until then.
comm::ExactReduction DeviceEngine::exact_reduction() {
  if (sum_on_host_ == nullptr)
    sum_on_host_ = std::make_unique<kernels::HugeArray<int64_t>>(layout().elements());
  total_is_on_host_ = true;
  total_is_on_device_ = false;
  comm::ExactReduction reduction;
  reduction.step = state().step;
  reduction.layout = &layout();
  reduction.accumulator = std::as_const(*sum_on_host_).span();
  reduction.total = &total_;
  reduction.rounding = {int(job().bits), model::round_key(uint64_t(job().seed), state().step)};
  return reduction;
}

comm::FloatReduction DeviceEngine::float_reduction() {
  TROUPE_CHECK(false, "a device adds exact sums alone");
  return {};
}

void DeviceEngine::fetch_sum(int64_t begin, int64_t end) {
  if (begin == end) return;
  const int64_t first = layout().block(begin).offset, count = layout().elements_in(begin, end);
  trainer_.sum().copy_to_host(*device_.copies, first, first + count, sum_on_host_->span().data() + first);
}

comm::SumMeta DeviceEngine::reduce_in_group(size_t members, comm::Deadline deadline) {
  kernels::DeviceRuntime& runtime = device_.copies->runtime();
  const std::vector<comm::Bucket> buckets = comm::buckets_last_first(layout(), kBucketElements);
  int64_t most = kIntegers;
  for (const comm::Bucket& b : buckets) most = std::max(most, layout().elements_in(b.begin, b.end));
  if (bucket_.bytes() == 0) bucket_ = runtime.allocate(size_t(most) * sizeof(int64_t));
  total_is_on_host_ = total_is_on_device_ = false;
  const comm::SumMeta sum = add_in_group(own_sum(), members, deadline);
  auto* values = static_cast<int64_t*>(bucket_.data());
  for (const comm::Bucket& b : buckets) {
    if (b.begin == b.end) continue;
    const int64_t first = layout().block(b.begin).offset, count = layout().elements_in(b.begin, b.end);
    const size_t bytes = size_t(count) * sizeof(int64_t);
    runtime.copy_rows(values, bytes, trainer_.sum().values() + first, bytes, bytes, 1);
    device_.group->add(runtime, values, count, deadline);
    trainer_.total().round(*device_.copies, values, b.begin, b.end,
                           {int(job().bits), model::round_key(uint64_t(job().seed), state().step)});
  }
  device_.group->wait(runtime, deadline);
  total_is_on_device_ = true;
  return sum;
}

// The integers beside the gradient; flags are counted, and the step is there to be the same for all.
comm::SumMeta DeviceEngine::add_in_group(const comm::SumMeta& own, size_t members, comm::Deadline deadline) {
  kernels::DeviceRuntime& runtime = device_.copies->runtime();
  auto* place = static_cast<int64_t*>(bucket_.data());
  const auto raised = [&](uint32_t flag) { return int64_t((own.flags & flag) != 0 ? 1 : 0); };
  std::array<int64_t, kIntegers> integers = {state().step,
                                             own.target_tokens,
                                             own.correct,
                                             own.loss,
                                             own.nll,
                                             own.samples,
                                             own.more[0],
                                             own.more[1],
                                             own.more[2],
                                             raised(kernels::kSumNotFinite),
                                             raised(kernels::kSumOverflow)};
  runtime.copy_in(place, integers.data(), sizeof integers);
  device_.group->add(runtime, place, kIntegers, deadline);
  device_.group->wait(runtime, deadline);
  runtime.copy_out(integers.data(), place, sizeof integers);
  if (integers[0] != int64_t(members) * state().step)
    throw error(ErrorKind::protocol, "members of a group have come to it with different steps");
  comm::SumMeta sum{integers[1],       integers[2], integers[3],
                    integers[4],       integers[5], {integers[6], integers[7], integers[8]},
                    kernels::kSumClean};
  if (integers[9] != 0) sum.flags |= kernels::kSumNotFinite;
  if (integers[10] != 0) sum.flags |= kernels::kSumOverflow;
  return sum;
}

const kernels::RoundedTotal& DeviceEngine::total() {
  if (!total_is_on_host_) total_ = trainer_.total().to_host(*device_.copies);
  total_is_on_host_ = true;
  return total_;
}

void DeviceEngine::set_total(kernels::RoundedTotal total) {
  check_shape(total);
  total_ = std::move(total);
  total_is_on_host_ = true;
  total_is_on_device_ = false;
}

std::shared_ptr<SharedWork> DeviceEngine::verify_work() {
  return in_one_piece([this] {
    note(checksums_.check(*device_.work, trainer_.state(),
                          {DeviceChecksums::kWeights, DeviceChecksums::kPacked}));
  });
}

std::shared_ptr<SharedWork> DeviceEngine::clear_sums_work() {
  return in_one_piece([this] { trainer_.clear_sum(); });
}

std::shared_ptr<SharedWork> DeviceEngine::measure_work(bool reduced) {
  return in_one_piece([this, reduced] {
    if (!reduced) {
      trainer_.round_sum();
      total_is_on_host_ = false;
    } else if (!total_is_on_device_) {
      trainer_.set_total(total_);
    }
    total_is_on_device_ = true;
    trainer_.measure(measures());
  });
}

std::shared_ptr<SharedWork> DeviceEngine::update_work() {
  return in_one_piece([this] {
    if (!step_plan().skipped) {
      note(checksums_.check(
          *device_.work, trainer_.state(),
          {DeviceChecksums::kWeights, DeviceChecksums::kMoment1, DeviceChecksums::kMoment2}));
      trainer_.update(step_plan());
      checksums_.seal(*device_.work, trainer_.state());
    }
    trainer_.clear_sum();
  });
}

// Done with the update.
std::shared_ptr<SharedWork> DeviceEngine::pack_work() {
  return std::make_shared<SharedWork>(0, SharedWork::Body());
}

model::TrainState DeviceEngine::snapshot() {
  model::TrainState copy = trainer_.copy_state(*device_.copies);
  note(checksums_.check_copy(copy));
  require_sound();
  return copy;
}

// A GPU's memory is not this process's; the emulated device's is.
std::vector<MemoryRegion> DeviceEngine::memory_map() const {
  const model::TrainState& state = trainer_.state();
  if (state.weights.device().kind != kernels::DeviceKind::cpu) return {};
  return {{"weights", state.weights.data(), state.weights.bytes()},
          {"moments", state.moment1.data(), state.moment1.bytes()},
          {"moments", state.moment2.data(), state.moment2.bytes()},
          {"packed", state.packed.memory.data(), state.packed.memory.bytes()}};
}

}  // namespace troupe::actors
