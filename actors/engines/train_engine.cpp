#include "actors/engines/train_engine.hpp"

#include <array>

#include "kernels/base/hash.hpp"

namespace troupe::actors {

TrainEngine::TrainEngine(config::JobConfig job, scheduler::SlotPlan plan, std::unique_ptr<model::Model> model)
    : job_(std::move(job)),
      optimizer_(config::resolved_optimizer(job_)),
      plan_(plan),
      model_(std::move(model)),
      measures_(model_->parameters().layout()) {}

std::string TrainEngine::chain() const {
  return {state().chain.begin(), state().chain.end()};
}

void TrainEngine::run_slot(uint32_t worker, int64_t step, uint32_t slot, const Batch& batch) {
  TROUPE_CHECK(step == state().step, "slot {} of step {} meets a state at step {}", slot, step, state().step);
  if (!batch.empty()) {
    uint32_t flags = kernels::kSumClean;
    const bool held_out = plan_.is_evaluation(slot);
    const kernels::LossSums sums = held_out ? evaluate(worker, batch) : train(worker, slot, batch, flags);
    const std::lock_guard lock(sums_mutex_);
    (held_out ? evaluation_ : training_).add(sums);
    flags_ |= flags;
  }
  progress_.reached(slot, 0);
}

void TrainEngine::probe(const Batch& batch) {
  const std::vector<std::string> names = devices();
  probed_ = probe_on(0, batch);
  for (uint32_t i = 1; i < names.size(); ++i)
    if (probe_on(i, batch) != probed_)
      throw error(ErrorKind::device,
                  "{} makes other bits of the first slot than {}; a node trains on devices of one kind: name "
                  "those that are alike (troupe doctor lists them), or run a node for each kind",
                  names[i], names[0]);
}

std::string TrainEngine::probe_on(uint32_t worker, const Batch& batch) {
  open_worker(worker);
  run_slot(worker, state().step, 0, batch);
  const std::array<int64_t, 4> losses = {training_.loss_units, training_.nll_units, training_.tokens,
                                         training_.correct};
  const uint64_t gradient = hash_of_sum(worker);
  clear_work()->run(stream(worker));
  close_worker(worker);
  return fmt::format("{:016x}{:016x}", gradient, checksum64(losses.data(), sizeof losses));
}

comm::SumMeta TrainEngine::own_sum() const {
  const std::lock_guard lock(sums_mutex_);
  return to_meta(training_, evaluation_, flags_);
}

void TrainEngine::add_in_group(size_t, comm::Deadline) {
  TROUPE_CHECK(false, "there is no group");
}
comm::SumMeta TrainEngine::finish_in_group(size_t, comm::Deadline) {
  TROUPE_CHECK(false, "there is no group");
  return {};
}

void TrainEngine::check_shape(const kernels::RoundedTotal& total) const {
  if (int64_t(total.mantissa.size()) != layout().elements() ||
      int64_t(total.shift.size()) != layout().blocks())
    throw error(ErrorKind::corrupt, "a total of {} elements came for a model of {}", total.mantissa.size(),
                layout().elements());
}

void TrainEngine::forget_losses() {
  const std::lock_guard lock(sums_mutex_);
  training_ = evaluation_ = {};
  flags_ = kernels::kSumClean;
  progress_.reset();
}

std::shared_ptr<SharedWork> TrainEngine::clear_work() {
  forget_losses();
  return clear_sums_work();
}

void TrainEngine::note(const std::optional<std::string>& changed) {
  if (!changed) return;
  const std::lock_guard lock(changed_mutex_);
  if (!changed_) changed_ = changed;
}

void TrainEngine::require_sound() const {
  const std::lock_guard lock(changed_mutex_);
  if (changed_)
    throw error(ErrorKind::corrupt,
                "{} has changed in this node's memory without being written (found in step {}); check the "
                "machine, and "
                "go on from the newest checkpoint with --resume",
                *changed_, state().step);
}

std::shared_ptr<SharedWork> TrainEngine::apply_work(const comm::SumMeta& sum) {
  step_plan_ = model::begin_step(optimizer_, state(), measures_, sum.target_tokens, sum.flags);
  return update_work();
}

StepOutcome TrainEngine::finish_commit(const comm::SumMeta& sum) {
  require_sound();
  model::TrainState& state = mutable_state();
  StepOutcome outcome;
  outcome.plan = step_plan_;
  outcome.training = training_totals(sum);
  if (plan_.evaluates(step_plan_.step)) {
    outcome.evaluation = evaluation_totals(sum);
    state.evaluation.record(step_plan_.step, *outcome.evaluation);
    outcome.best_step = state.evaluation.best_step;
  }
  model::finish_step(step_plan_, measures_, state);
  counters_moved();
  outcome.skipped = state.skipped;
  outcome.target_tokens = state.target_tokens;
  forget_losses();
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
