#include "actors/device_engine.hpp"

#include <cstring>

namespace troupe::actors {

using model::DeviceChecksums;

namespace {

model::StepOptions options_of(const config::JobConfig& job) {
  return {uint64_t(job.seed), int(job.slots), int(job.bits), config::resolved_optimizer(job)};
}

// For the one worker.
std::shared_ptr<SharedWork> in_one_piece(std::function<void()> body) {
  return std::make_shared<SharedWork>(1, [body = std::move(body)](kernels::Stream&, int64_t) { body(); });
}

}  // namespace

DeviceEngine::DeviceEngine(DeviceStreams streams, std::string numerics, config::JobConfig job,
                           scheduler::SlotPlan plan, std::unique_ptr<model::Model> model,
                           const model::TrainState& state)
    : TrainEngine(std::move(job), plan, std::move(model)),
      streams_(std::move(streams)),
      numerics_(std::move(numerics)),
      trainer_(*streams_.work, this->model(), options_of(this->job()), state),
      checksums_(this->model().parameters(), trainer_.state()) {
  TROUPE_CHECK(this->job().sum == config::SumKind::exact);
  trainer_.clear_sum();
  checksums_.seal(*streams_.work, trainer_.state());
  total_.resize(layout());
}

void DeviceEngine::replace_state(model::TrainState state) {
  trainer_.load(state);
  checksums_.seal(*streams_.work, trainer_.state());
}

bool DeviceEngine::holds(const model::TrainState& state) const {
  const model::TrainState own = trainer_.copy_state(*streams_.copies);
  const size_t bytes = size_t(own.elements) * sizeof(float);
  return state.elements == own.elements && std::memcmp(own.weight_data(), state.weight_data(), bytes) == 0 &&
         std::memcmp(own.moment1_data(), state.moment1_data(), bytes) == 0 &&
         std::memcmp(own.moment2_data(), state.moment2_data(), bytes) == 0;
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
  trainer_.sum().copy_to_host(*streams_.copies, first, first + count, sum_on_host_->span().data() + first);
}

const kernels::RoundedTotal& DeviceEngine::total() {
  if (!total_is_on_host_) total_ = trainer_.total().to_host(*streams_.copies);
  total_is_on_host_ = true;
  return total_;
}

void DeviceEngine::set_total(kernels::RoundedTotal total) {
  check_shape(total);
  total_ = std::move(total);
  total_is_on_host_ = true;
}

std::shared_ptr<SharedWork> DeviceEngine::verify_work() {
  return in_one_piece([this] {
    note(checksums_.check(*streams_.work, trainer_.state(),
                          {DeviceChecksums::kWeights, DeviceChecksums::kPacked}));
  });
}

std::shared_ptr<SharedWork> DeviceEngine::clear_sums_work() {
  return in_one_piece([this] { trainer_.clear_sum(); });
}

std::shared_ptr<SharedWork> DeviceEngine::measure_work(bool reduced) {
  return in_one_piece([this, reduced] {
    if (reduced)
      trainer_.set_total(total_);
    else
      trainer_.round_sum();
    total_is_on_host_ = reduced;
    trainer_.measure(measures());
  });
}

std::shared_ptr<SharedWork> DeviceEngine::update_work() {
  return in_one_piece([this] {
    if (!step_plan().skipped) {
      note(checksums_.check(
          *streams_.work, trainer_.state(),
          {DeviceChecksums::kWeights, DeviceChecksums::kMoment1, DeviceChecksums::kMoment2}));
      trainer_.update(step_plan());
      checksums_.seal(*streams_.work, trainer_.state());
    }
    trainer_.clear_sum();
  });
}

// Done with the update.
std::shared_ptr<SharedWork> DeviceEngine::pack_work() {
  return std::make_shared<SharedWork>(0, SharedWork::Body());
}

model::TrainState DeviceEngine::snapshot() {
  model::TrainState copy = trainer_.copy_state(*streams_.copies);
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
