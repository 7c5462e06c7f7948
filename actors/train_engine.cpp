#include "actors/train_engine.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/base/hash.hpp"
#include "model/step.hpp"

namespace troupe::actors {

struct TrainEngine::Worker {
  std::unique_ptr<kernels::Stream> stream;
  std::optional<kernels::Arena> arena;
};

TrainEngine::TrainEngine(std::shared_ptr<kernels::Backend> backend, config::JobConfig job,
                         scheduler::SlotPlan plan, std::unique_ptr<model::Model> model,
                         model::TrainState state, uint32_t workers)
    : backend_(std::move(backend)),
      job_(std::move(job)),
      optimizer_(config::resolved_optimizer(job_)),
      plan_(plan),
      model_(std::move(model)),
      state_(std::move(state)),
      checksums_(model_->parameters()),
      measures_(model_->parameters().layout()) {
  TROUPE_CHECK(workers > 0);
  checksums_.seal(*backend_->create_stream(), state_);
  const kernels::BlockLayout& layout = model_->parameters().layout();
  for (uint32_t i = 0; i < workers; ++i) workers_.push_back(std::make_unique<Worker>());
  if (job_.sum == config::SumKind::exact)
    exact_ = std::make_unique<kernels::ExactAccumulator>(layout);
  else
    float_ = std::make_unique<kernels::FloatAccumulator>(layout);
  total_.resize(layout);
  const auto& parameters = model_->parameters().all();
  for (size_t i = 0; i < parameters.size(); ++i)
    if (parameters[i].packed) pack_order_.push_back(i);
  const auto size = [&](size_t i) { return parameters[i].rows * parameters[i].cols; };
  std::stable_sort(pack_order_.begin(), pack_order_.end(),
                   [&](size_t a, size_t b) { return size(a) > size(b); });
}

TrainEngine::~TrainEngine() = default;

std::string TrainEngine::chain() const {
  return {state_.chain.begin(), state_.chain.end()};
}

void TrainEngine::replace_state(model::TrainState state) {
  state_ = std::move(state);
  checksums_.seal(*backend_->create_stream(), state_);
}

void TrainEngine::open_worker(uint32_t worker) {
  workers_.at(worker)->stream = backend_->create_stream();
}

kernels::Stream& TrainEngine::stream(uint32_t worker) {
  return *workers_.at(worker)->stream;
}

void TrainEngine::fit_arena(Worker& worker, const Batch& batch, bool training) {
  const int64_t rows = batch.target_in.rows;
  const int64_t length = std::max(batch.source.cols, batch.target_in.cols);
  const size_t bytes = batch.empty() ? 0 : model_->arena_bytes(rows, rows * length, training);
  if (worker.arena && worker.arena->capacity() >= bytes) return;
  worker.arena.reset();  // the old one first: never hold both
  worker.arena.emplace(backend_->allocate(bytes));
}

uint32_t TrainEngine::run_slot(uint32_t index, int64_t step, uint32_t slot, const Batch& batch) {
  TROUPE_CHECK(step == state_.step, "slot {} of step {} meets a state at step {}", slot, step, state_.step);
  if (batch.empty()) return kernels::kSumClean;
  Worker& worker = *workers_.at(index);
  const bool held_out = plan_.is_evaluation(slot);
  fit_arena(worker, batch, !held_out);
  uint32_t flags = kernels::kSumClean;
  kernels::LossSums sums;
  if (held_out)
    sums = model_->evaluate_slot(*worker.stream, *worker.arena, state_.view(), batch,
                                 optimizer_.label_smoothing);
  else
    sums = train(worker, step, slot, batch, flags);
  const std::lock_guard lock(sums_mutex_);
  (held_out ? evaluation_ : training_).add(sums);
  flags_ |= flags;
  return flags;
}

kernels::LossSums TrainEngine::train(Worker& worker, int64_t step, uint32_t slot, const Batch& batch,
                                     uint32_t& flags) {
  const model::SlotKey key{uint64_t(job_.seed), step, slot};
  const auto run = [&](kernels::GradientSink& sink) {
    return model_->train_slot(*worker.stream, *worker.arena, state_.view(), batch, key,
                              optimizer_.label_smoothing, sink);
  };
  if (exact_ != nullptr) {
    kernels::ExactSink sink(*exact_,
                            {int(job_.bits), int(job_.slots), model::fold_key(key.seed, step, slot)});
    const auto sums = run(sink);
    flags = sink.flags();
    return sums;
  }
  kernels::FloatSink sink(*float_);
  const auto sums = run(sink);
  flags = sink.flags();
  return sums;
}

void TrainEngine::probe(const Batch& batch) {
  open_worker(0);
  run_slot(0, state_.step, 0, batch);
  const auto hash = [](const auto& values) {
    return checksum64(values.data(), values.size() * sizeof(values[0]));
  };
  const std::array<int64_t, 4> losses = {training_.loss_units, training_.nll_units, training_.tokens,
                                         training_.correct};
  const uint64_t gradient =
      exact_ != nullptr ? hash(std::as_const(*exact_).values()) : hash(float_->values());
  clear_work()->run(stream(0));
  *workers_.at(0) = Worker();
  probed_ = fmt::format("{:016x}{:016x}", gradient, hash(losses));
}

comm::SumMeta TrainEngine::own_sum() const {
  const std::lock_guard lock(sums_mutex_);
  return to_meta(training_, evaluation_, flags_);
}

comm::ExactReduction TrainEngine::exact_reduction() {
  comm::ExactReduction reduction;
  reduction.step = state_.step;
  reduction.layout = &model_->parameters().layout();
  reduction.accumulator = std::as_const(*exact_).values();
  reduction.total = &total_;
  reduction.rounding = {int(job_.bits), model::round_key(uint64_t(job_.seed), state_.step)};
  return reduction;
}

comm::FloatReduction TrainEngine::float_reduction() {
  comm::FloatReduction reduction;
  reduction.step = state_.step;
  reduction.values = float_->values();
  return reduction;
}

void TrainEngine::set_total(kernels::RoundedTotal total) {
  const kernels::BlockLayout& layout = model_->parameters().layout();
  if (int64_t(total.mantissa.size()) != layout.elements() || int64_t(total.shift.size()) != layout.blocks())
    throw error(ErrorKind::corrupt, "a total of {} elements came for a model of {}", total.mantissa.size(),
                layout.elements());
  total_ = std::move(total);
}

std::shared_ptr<SharedWork> TrainEngine::clear_work() {
  {
    const std::lock_guard lock(sums_mutex_);
    training_ = evaluation_ = {};
    flags_ = kernels::kSumClean;
  }
  return std::make_shared<SharedWork>(model::commit_ranges(model_->parameters().layout()),
                                      [this](kernels::Stream&, int64_t range) { clear_range(range); });
}

void TrainEngine::clear_range(int64_t range) {
  const int64_t begin = range * model::kRangeBlocks;
  const int64_t end = std::min(begin + model::kRangeBlocks, model_->parameters().layout().blocks());
  if (exact_ != nullptr) exact_->clear(begin, end);
  if (float_ != nullptr) float_->clear(begin, end);
}

// Rounds what this node's accumulator holds: with one node, or when floats were added up in place.
void TrainEngine::round_range(int64_t range) {
  const kernels::BlockLayout& layout = model_->parameters().layout();
  const int64_t begin = range * model::kRangeBlocks;
  const int64_t end = std::min(begin + model::kRangeBlocks, layout.blocks());
  const auto first = size_t(layout.block(begin).offset);
  const auto count = size_t(layout.elements_in(begin, end));
  if (exact_ != nullptr)
    kernels::round_total(layout, std::as_const(*exact_).values().subspan(first, count),
                         {int(job_.bits), model::round_key(uint64_t(job_.seed), state_.step)}, begin, end,
                         total_);
  else
    kernels::round_float_total(layout, std::as_const(*float_).values().subspan(first, count), begin, end,
                               total_);
}

std::shared_ptr<SharedWork> TrainEngine::verify_work() {
  const int64_t ranges = checksums_.ranges();
  return std::make_shared<SharedWork>(
      ranges + int64_t(pack_order_.size()), [this, ranges](kernels::Stream& stream, int64_t item) {
        note(item < ranges ? checksums_.check_weights(item, state_.arrays())
                           : checksums_.check_packed(stream, pack_order_[size_t(item - ranges)], state_));
      });
}

void TrainEngine::note(const std::optional<std::string>& changed) {
  if (!changed) return;
  const std::lock_guard lock(changed_mutex_);
  if (!changed_) changed_ = changed;
}

model::TrainState TrainEngine::snapshot() {
  model::TrainState copy = state_.clone(*backend_);
  for (int64_t range = 0; range < checksums_.ranges(); ++range) {
    note(checksums_.check_weights(range, copy.arrays()));
    note(checksums_.check_moments(range, copy.arrays()));
  }
  require_sound();
  return copy;
}

void TrainEngine::require_sound() const {
  const std::lock_guard lock(changed_mutex_);
  if (changed_)
    throw error(ErrorKind::corrupt,
                "{} has changed in this node's memory without being written (found in step {}); check the "
                "machine, and "
                "go on from the newest checkpoint with --resume",
                *changed_, state_.step);
}

std::shared_ptr<SharedWork> TrainEngine::measure_work(bool reduced) {
  const kernels::BlockLayout& layout = model_->parameters().layout();
  const bool round = !reduced || float_ != nullptr;
  return std::make_shared<SharedWork>(
      model::commit_ranges(layout), [this, round](kernels::Stream& stream, int64_t r) {
        if (round) round_range(r);
        model::measure_range(stream, model_->parameters().layout(), total_, r, measures_);
      });
}

std::shared_ptr<SharedWork> TrainEngine::apply_work(const comm::SumMeta& sum) {
  step_plan_ = model::begin_step(optimizer_, state_, measures_, sum.target_tokens, sum.flags);
  const int64_t ranges = model::commit_ranges(model_->parameters().layout());
  return std::make_shared<SharedWork>(ranges, [this](kernels::Stream& stream, int64_t r) {
    if (!step_plan_.skipped) {
      apply_checked(stream, r);
    }
    clear_range(r);
  });
}

// On a copy of the range: what is checked is what is computed with, and what is sealed is what comes out,
// whatever happens to the state meanwhile.
void TrainEngine::apply_checked(kernels::Stream& stream, int64_t range) {
  thread_local std::vector<float> scratch;
  const kernels::BlockLayout& layout = model_->parameters().layout();
  const int64_t begin = range * model::kRangeBlocks,
                end = std::min(begin + model::kRangeBlocks, layout.blocks());
  const int64_t first = layout.block(begin).offset;
  const auto count = size_t(layout.elements_in(begin, end));
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
  model::apply_range(stream, step_plan_, model_->parameters(), total_, range, copy);
  checksums_.seal_range(range, copy);
  for (size_t i = 0; i < 3; ++i) std::memcpy(arrays[i], scratch.data() + i * count, count * sizeof(float));
}

std::shared_ptr<SharedWork> TrainEngine::pack_work() {
  const int64_t items = step_plan_.skipped ? 0 : int64_t(pack_order_.size());
  return std::make_shared<SharedWork>(items, [this](kernels::Stream& stream, int64_t i) {
    const size_t parameter = pack_order_[size_t(i)];
    model::pack_parameter(stream, model_->parameters(), parameter, state_);
    checksums_.seal_packed(stream, parameter, state_);
  });
}

StepOutcome TrainEngine::finish_commit(const comm::SumMeta& sum) {
  require_sound();
  StepOutcome outcome;
  outcome.plan = step_plan_;
  outcome.training = training_totals(sum);
  if (plan_.evaluates(step_plan_.step)) {
    outcome.evaluation = evaluation_totals(sum);
    state_.evaluation.record(step_plan_.step, *outcome.evaluation);
    outcome.best_step = state_.evaluation.best_step;
  }
  model::finish_step(step_plan_, measures_, state_);
  outcome.skipped = state_.skipped;
  outcome.target_tokens = state_.target_tokens;
  const std::lock_guard lock(sums_mutex_);
  training_ = evaluation_ = {};
  flags_ = kernels::kSumClean;
  return outcome;
}

comm::SumMeta to_meta(const model::LossTotals& training, const model::LossTotals& evaluation,
                      uint32_t flags) {
  comm::SumMeta sum;
  sum.target_tokens = training.tokens;
  sum.correct = training.correct;
  sum.loss = training.loss_units;
  sum.nll = training.nll_units;
  sum.samples = evaluation.correct;
  sum.more = {evaluation.loss_units, evaluation.nll_units, evaluation.tokens};
  sum.flags = flags;
  return sum;
}

model::LossTotals training_totals(const comm::SumMeta& sum) {
  return {sum.loss, sum.nll, sum.target_tokens, sum.correct};
}

model::LossTotals evaluation_totals(const comm::SumMeta& sum) {
  return {sum.more[0], sum.more[1], sum.more[2], sum.samples};
}

}  // namespace troupe::actors
