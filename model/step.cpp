#include "model/step.hpp"

#include <algorithm>
#include <optional>

#include "kernels/accumulator.hpp"
#include "kernels/base/random.hpp"
#include "model/slot_arena.hpp"

namespace troupe::model {

namespace {

constexpr uint64_t kRoundingKey = 0x726f756e64;  // keeps rounding's numbers apart from dropout's

size_t bytes_for(const Model& model, const Batch& batch, bool training) {
  const int64_t rows = batch.target_in.rows;
  const int64_t length = std::max(batch.source.cols, batch.target_in.cols);
  return batch.empty() ? 0 : model.arena_bytes(rows, rows * length, training);
}

}  // namespace

uint64_t fold_key(uint64_t seed, int64_t step, uint32_t slot) {
  return mix64(mix64(mix64(seed, kRoundingKey), uint64_t(step)), slot);
}

uint64_t round_key(uint64_t seed, int64_t step) {
  return mix64(mix64(seed, kRoundingKey + 1), uint64_t(step));
}

void train_one_process(kernels::Backend& backend, const Model& model, const StepOptions& options,
                       const BatchSource& batches, int64_t end_step, TrainState& state,
                       const std::function<void(const StepResult&)>& report) {
  const kernels::BlockLayout& layout = model.parameters().layout();
  const auto stream = backend.create_stream();
  kernels::ExactAccumulator accumulator(layout);
  kernels::RoundedTotal total;
  total.resize(layout);
  std::optional<kernels::Arena> arena;
  while (state.step < end_step) {
    accumulator.clear();
    StepResult result;
    uint32_t flags = kernels::kSumClean;
    for (uint32_t slot = 0; slot < uint32_t(options.slots); ++slot) {
      const Batch batch = batches(state.step, slot);
      kernels::Arena& room = with_room(arena, bytes_for(model, batch, true), backend);
      kernels::ExactSink sink(accumulator,
                              {options.bits, options.slots, fold_key(options.seed, state.step, slot)});
      const auto sums = model.train_slot(*stream, room, state.view(), batch, {options.seed, state.step, slot},
                                         options.optimizer.label_smoothing, sink);
      result.loss.add(sums);
      flags |= sink.flags();
    }
    kernels::round_total(layout, accumulator.values(), {options.bits, round_key(options.seed, state.step)}, 0,
                         layout.blocks(), total);
    result.plan = commit_step(*stream, options.optimizer, model, total, result.loss.tokens, flags, state);
    if (report) report(result);
  }
}

LossTotals evaluate_one_process(kernels::Backend& backend, const Model& model, const WeightsView& weights,
                                const BatchSource& batches, int slots, float label_smoothing) {
  const auto stream = backend.create_stream();
  std::optional<kernels::Arena> arena;
  LossTotals totals;
  for (uint32_t slot = 0; slot < uint32_t(slots); ++slot) {
    const Batch batch = batches(0, slot);
    kernels::Arena& room = with_room(arena, bytes_for(model, batch, false), backend);
    totals.add(model.evaluate_slot(*stream, room, weights, batch, label_smoothing));
  }
  return totals;
}

}  // namespace troupe::model
