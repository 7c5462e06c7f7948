#include "actors/engines/cpu_engine.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/base/hash.hpp"
#include "model/slot_arena.hpp"
#include "model/step.hpp"

namespace troupe::actors {

struct CpuEngine::Worker {
  std::unique_ptr<kernels::Stream> stream;
  std::optional<kernels::Arena> arena;
};

namespace {

// Says how far its slot has come.
class TellingSink final : public kernels::ExactSink {
 public:
  TellingSink(kernels::ExactAccumulator& sums, const kernels::FoldOptions& options, uint32_t slot,
              SlotProgress& progress)
      : ExactSink(sums, options), layout_(sums.layout()), slot_(slot), progress_(progress) {}
  void whole_from(int64_t offset) override { progress_.reached(slot_, layout_.block_at(offset)); }

 private:
  const kernels::BlockLayout& layout_;
  const uint32_t slot_;
  SlotProgress& progress_;
};

}  // namespace

CpuEngine::CpuEngine(std::shared_ptr<kernels::Backend> backend, config::JobConfig job,
                     scheduler::SlotPlan plan, std::unique_ptr<model::Model> model, model::TrainState state,
                     uint32_t workers)
    : TrainEngine(std::move(job), plan, std::move(model)),
      backend_(std::move(backend)),
      checksums_(this->model().parameters()) {
  TROUPE_CHECK(workers > 0);
  if (this->job().model.products == model::Products::tf32)
    throw error(ErrorKind::device,
                "a CPU does not multiply in tf32 (model.products = \"tf32\"): train on a GPU, or set "
                "model.products = \"compute\"");
  replace_state(std::move(state));
  for (uint32_t i = 0; i < workers; ++i) workers_.push_back(std::make_unique<Worker>());
  if (this->job().sum == config::SumKind::exact)
    exact_ = std::make_unique<kernels::ExactAccumulator>(layout());
  else
    float_ = std::make_unique<kernels::FloatAccumulator>(layout());
  total_.resize(layout());
  const auto& parameters = this->model().parameters().all();
  for (size_t i = 0; i < parameters.size(); ++i)
    if (parameters[i].packed) pack_order_.push_back(i);
  const auto size = [&](size_t i) { return parameters[i].rows * parameters[i].cols; };
  std::stable_sort(pack_order_.begin(), pack_order_.end(),
                   [&](size_t a, size_t b) { return size(a) > size(b); });
}

CpuEngine::~CpuEngine() = default;

void CpuEngine::replace_state(model::TrainState state) {
  const auto stream = backend_->create_stream();
  if (state.packed.views.empty()) model::pack_state(*backend_, *stream, model(), state);
  state_ = std::move(state);
  checksums_.seal(*stream, state_);
}

bool CpuEngine::holds(const model::TrainState& state) const {
  return model::same_arrays(state_, state);
}

void CpuEngine::open_worker(uint32_t worker) {
  workers_.at(worker)->stream = backend_->create_stream();
}

void CpuEngine::close_worker(uint32_t worker) {
  *workers_.at(worker) = Worker();
}

kernels::Stream& CpuEngine::stream(uint32_t worker) {
  return *workers_.at(worker)->stream;
}

// The worker with room for a slot.
CpuEngine::Worker& CpuEngine::fitted(uint32_t index, const Batch& batch, bool training) {
  Worker& worker = *workers_.at(index);
  const int64_t rows = batch.target_in.rows;
  const int64_t length = std::max(batch.source.cols, batch.target_in.cols);
  model::with_room(worker.arena, model().arena_bytes(rows, rows * length, training), *backend_);
  return worker;
}

kernels::LossSums CpuEngine::evaluate(uint32_t index, const Batch& batch) {
  Worker& worker = fitted(index, batch, false);
  return model().evaluate_slot(*worker.stream, *worker.arena, state_.view(), batch,
                               optimizer().label_smoothing);
}

kernels::LossSums CpuEngine::train(uint32_t index, uint32_t slot, const Batch& batch, uint32_t& flags) {
  Worker& worker = fitted(index, batch, true);
  const model::SlotKey key{uint64_t(job().seed), state_.step, slot};
  const auto run = [&](auto& sink) {
    const kernels::LossSums sums = model().train_slot(*worker.stream, *worker.arena, state_.view(), batch,
                                                      key, optimizer().label_smoothing, sink);
    flags = sink.flags();
    return sums;
  };
  if (exact_ != nullptr) {
    TellingSink sink(*exact_, {int(job().bits), int(job().slots), model::fold_key(key.seed, key.step, slot)},
                     slot, mutable_progress());
    return run(sink);
  }
  kernels::FloatSink sink(*float_);
  return run(sink);
}

uint64_t CpuEngine::hash_of_sum(uint32_t) {
  const auto hash = [](const auto& values) { return checksum64(values.data(), values.size_bytes()); };
  return exact_ != nullptr ? hash(exact_->values()) : hash(float_->values());
}

comm::ExactReduction CpuEngine::exact_reduction() {
  comm::ExactReduction reduction;
  reduction.step = state_.step;
  reduction.layout = &layout();
  reduction.accumulator = std::as_const(*exact_).values();
  reduction.total = &total_;
  reduction.rounding = {int(job().bits), model::round_key(uint64_t(job().seed), state_.step)};
  return reduction;
}

comm::FloatReduction CpuEngine::float_reduction() {
  comm::FloatReduction reduction;
  reduction.step = state_.step;
  reduction.values = float_->values();
  return reduction;
}

void CpuEngine::set_total(kernels::RoundedTotal total) {
  check_shape(total);
  total_ = std::move(total);
}

std::shared_ptr<SharedWork> CpuEngine::clear_sums_work() {
  return std::make_shared<SharedWork>(model::commit_ranges(layout()),
                                      [this](kernels::Stream&, int64_t range) { clear_range(range); });
}

void CpuEngine::clear_range(int64_t range) {
  const int64_t begin = range * model::kRangeBlocks;
  const int64_t end = std::min(begin + model::kRangeBlocks, layout().blocks());
  if (exact_ != nullptr) exact_->clear(begin, end);
  if (float_ != nullptr) float_->clear(begin, end);
}

// Rounds what this node's accumulator holds: with one node, or when floats were added up in place.
void CpuEngine::round_range(int64_t range) {
  const int64_t begin = range * model::kRangeBlocks;
  const int64_t end = std::min(begin + model::kRangeBlocks, layout().blocks());
  const auto first = size_t(layout().block(begin).offset);
  const auto count = size_t(layout().elements_in(begin, end));
  if (exact_ != nullptr)
    kernels::round_total(layout(), std::as_const(*exact_).values().subspan(first, count),
                         {int(job().bits), model::round_key(uint64_t(job().seed), state_.step)}, begin, end,
                         total_);
  else
    kernels::round_float_total(layout(), std::as_const(*float_).values().subspan(first, count), begin, end,
                               total_);
}

std::shared_ptr<SharedWork> CpuEngine::verify_work() {
  const int64_t ranges = checksums_.ranges();
  return std::make_shared<SharedWork>(
      ranges + int64_t(pack_order_.size()), [this, ranges](kernels::Stream& stream, int64_t item) {
        note(item < ranges ? checksums_.check_weights(item, state_.arrays())
                           : checksums_.check_packed(stream, pack_order_[size_t(item - ranges)], state_));
      });
}

model::TrainState CpuEngine::snapshot() {
  model::TrainState copy = state_.clone(*backend_);
  for (int64_t range = 0; range < checksums_.ranges(); ++range) {
    note(checksums_.check_weights(range, copy.arrays()));
    note(checksums_.check_moments(range, copy.arrays()));
  }
  require_sound();
  return copy;
}

std::vector<MemoryRegion> CpuEngine::memory_map() const {
  const size_t bytes = size_t(state_.elements) * sizeof(float);
  return {{"weights", state_.weight_data(), bytes},
          {"moments", state_.moment1_data(), bytes},
          {"moments", state_.moment2_data(), bytes},
          {"packed", state_.packed.memory.data(), state_.packed.memory.bytes()}};
}

std::shared_ptr<SharedWork> CpuEngine::measure_work(bool reduced) {
  const bool round = !reduced || float_ != nullptr;
  return std::make_shared<SharedWork>(model::commit_ranges(layout()),
                                      [this, round](kernels::Stream& stream, int64_t range) {
                                        if (round) round_range(range);
                                        model::measure_range(stream, layout(), total_, range, measures());
                                      });
}

std::shared_ptr<SharedWork> CpuEngine::update_work() {
  return std::make_shared<SharedWork>(model::commit_ranges(layout()),
                                      [this](kernels::Stream& stream, int64_t range) {
                                        if (!step_plan().skipped) apply_checked(stream, range);
                                        clear_range(range);
                                      });
}

// On a copy of the range: what is checked is what is computed with, and what is sealed is what comes out,
// whatever happens to the state meanwhile.
void CpuEngine::apply_checked(kernels::Stream& stream, int64_t range) {
  thread_local std::vector<float> scratch;
  const int64_t begin = range * model::kRangeBlocks,
                end = std::min(begin + model::kRangeBlocks, layout().blocks());
  const int64_t first = layout().block(begin).offset;
  const auto count = size_t(layout().elements_in(begin, end));
  scratch.resize(3 * count);
  float* const arrays[] = {state_.weight_data() + first, state_.moment1_data() + first,
                           state_.moment2_data() + first};
  for (size_t i = 0; i < 3; ++i) std::memcpy(scratch.data() + i * count, arrays[i], count * sizeof(float));
  // Indexed from the beginning of the flat space, of which only this range is here.
  const auto shifted = [&](size_t i) {
    const auto address = reinterpret_cast<uintptr_t>(scratch.data() + i * count);
    return reinterpret_cast<float*>(address - uintptr_t(first) * sizeof(float));
  };
  const model::StateArrays copy{shifted(0), shifted(1), shifted(2)};
  note(checksums_.check_weights(range, copy));
  note(checksums_.check_moments(range, copy));
  model::apply_range(stream, step_plan(), model().parameters(), total_, range, copy);
  checksums_.seal_range(range, copy);
  for (size_t i = 0; i < 3; ++i) std::memcpy(arrays[i], scratch.data() + i * count, count * sizeof(float));
}

std::shared_ptr<SharedWork> CpuEngine::pack_work() {
  const int64_t items = step_plan().skipped ? 0 : int64_t(pack_order_.size());
  return std::make_shared<SharedWork>(items, [this](kernels::Stream& stream, int64_t i) {
    const size_t parameter = pack_order_[size_t(i)];
    model::pack_parameter(stream, model().parameters(), parameter, state_);
    checksums_.seal_packed(stream, parameter, state_);
  });
}

}  // namespace troupe::actors
