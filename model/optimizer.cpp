#include "model/optimizer.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>

#include "kernels/base/det_math.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::model {

using kernels::BlockLayout;
using kernels::fixed_tree_sum;
using kernels::RoundedTotal;

namespace {

struct BlockRange {
  int64_t begin = 0;
  int64_t end = 0;
};

BlockRange blocks_of(const BlockLayout& layout, int64_t range) {
  const int64_t begin = range * kRangeBlocks;
  TROUPE_CHECK(range >= 0 && begin < layout.blocks(), "range {} of {}", range, commit_ranges(layout));
  return {begin, std::min(begin + kRangeBlocks, layout.blocks())};
}

float adam_correction(float beta, int64_t updates) {
  return float(1.0 - det::pow(double(beta), updates));
}

void require(bool good, const char* name, double value, const char* right) {
  if (!good) throw error(ErrorKind::usage, "optimizer.{} is {}; it must be {}", name, value, right);
}

}  // namespace

void validate(const OptimizerConfig& c) {
  require(c.beta1 >= 0 && c.beta1 < 1, "beta1", c.beta1, "at least 0 and below 1");
  require(c.beta2 >= 0 && c.beta2 < 1, "beta2", c.beta2, "at least 0 and below 1");
  require(c.epsilon > 0 && c.epsilon < 1, "epsilon", c.epsilon, "above 0 and below 1");
  require(c.weight_decay >= 0 && c.weight_decay < 1, "weight_decay", c.weight_decay,
          "at least 0 and below 1");
  require(c.clip_norm >= 0 && std::isfinite(c.clip_norm), "clip_norm", c.clip_norm, "0 (off) or above");
  require(c.label_smoothing >= 0 && c.label_smoothing < 1, "label_smoothing", c.label_smoothing,
          "at least 0 and below 1");
  validate(c.schedule);
}

int64_t commit_ranges(const BlockLayout& layout) {
  return (layout.blocks() + kRangeBlocks - 1) / kRangeBlocks;
}

CommitMeasures::CommitMeasures(const BlockLayout& layout)
    : square_sums(size_t(commit_ranges(layout))), hashes(size_t(commit_ranges(layout))) {}

void measure_range(kernels::Stream& stream, const BlockLayout& layout, const RoundedTotal& total,
                   int64_t range, CommitMeasures& measures) {
  const auto [begin, end] = blocks_of(layout, range);
  std::array<double, kRangeBlocks> sums;
  stream.block_square_sums(layout, total, begin, end, sums.data());
  measures.square_sums[size_t(range)] = fixed_tree_sum(std::span(sums).first(size_t(end - begin)));
  const int64_t first = layout.block(begin).offset;
  const uint64_t parts[2] = {
      checksum64(total.mantissa.data() + first, size_t(layout.elements_in(begin, end)) * sizeof(int32_t)),
      checksum64(total.shift.data() + begin, size_t(end - begin))};
  measures.hashes[size_t(range)] = checksum64(parts, sizeof parts);
}

StepPlan begin_step(const OptimizerConfig& config, const TrainState& state, const CommitMeasures& measures,
                    int64_t tokens, uint32_t flags) {
  StepPlan plan;
  plan.step = state.step;
  plan.flags = flags;
  plan.tokens = tokens;
  plan.learning_rate = learning_rate(config.schedule, state.step);
  const double norm = det::sqrt(fixed_tree_sum(measures.square_sums)) / double(std::max<int64_t>(tokens, 1));
  plan.gradient_norm = norm;
  plan.skipped = flags != kernels::kSumClean || tokens <= 0 || !std::isfinite(norm);
  if (plan.skipped) return plan;
  const double clip =
      config.clip_norm > 0 && norm > double(config.clip_norm) ? double(config.clip_norm) / norm : 1;
  kernels::AdamW& adamw = plan.adamw;
  adamw.learning_rate = float(plan.learning_rate);
  adamw.beta1 = config.beta1;
  adamw.beta2 = config.beta2;
  adamw.epsilon = config.epsilon;
  adamw.weight_decay = config.weight_decay;
  adamw.bias_correction1 = adam_correction(config.beta1, state.updates + 1);
  adamw.bias_correction2 = adam_correction(config.beta2, state.updates + 1);
  adamw.gradient_scale = float(clip / double(tokens));
  return plan;
}

void apply_range(kernels::Stream& stream, const StepPlan& plan, const ParameterTable& table,
                 const RoundedTotal& total, int64_t range, const StateArrays& state) {
  if (plan.skipped) return;
  const BlockLayout& layout = table.layout();
  const auto [begin, end] = blocks_of(layout, range);
  // Parameters are the layout's segments, in the same order: find the first that reaches into the range.
  const auto& segments = layout.segments();
  auto segment =
      std::upper_bound(segments.begin(), segments.end(), begin,
                       [](int64_t block, const BlockLayout::Segment& s) { return block < s.first_block; });
  size_t index = size_t(segment - segments.begin()) - 1;
  for (int64_t block = begin; block < end; ++index) {
    const int64_t stop = std::min(end, segments[index].first_block + segments[index].blocks());
    kernels::AdamW adamw = plan.adamw;
    if (!table.all()[index].decays) adamw.weight_decay = 0;
    stream.adamw(adamw, layout, total, block, stop, state.weights, state.moment1, state.moment2);
    block = stop;
  }
}

void finish_step(const StepPlan& plan, const CommitMeasures& measures, TrainState& state) {
  TROUPE_CHECK(plan.step == state.step, "a plan for step {} meets a state at step {}", plan.step, state.step);
  Sha256 sha;
  const int64_t words[] = {plan.step, int64_t(plan.flags), plan.tokens, plan.skipped ? 1 : 0};
  const double numbers[] = {plan.gradient_norm, plan.learning_rate};
  sha.update(state.chain.data(), state.chain.size())
      .update(words, sizeof words)
      .update(numbers, sizeof numbers);
  sha.update(measures.hashes.data(), measures.hashes.size() * sizeof(uint64_t));
  state.chain = sha.digest();
  ++state.step;
  if (plan.skipped) {
    ++state.skipped;
  } else {
    ++state.updates;
    state.target_tokens += plan.tokens;
  }
}

StepPlan commit_step(kernels::Stream& stream, const OptimizerConfig& config, const Model& model,
                     const RoundedTotal& total, int64_t tokens, uint32_t flags, TrainState& state) {
  const ParameterTable& table = model.parameters();
  const int64_t ranges = commit_ranges(table.layout());
  CommitMeasures measures(table.layout());
  for (int64_t r = 0; r < ranges; ++r) measure_range(stream, table.layout(), total, r, measures);
  const StepPlan plan = begin_step(config, state, measures, tokens, flags);
  for (int64_t r = 0; r < ranges; ++r) apply_range(stream, plan, table, total, r, state.arrays());
  if (!plan.skipped)
    for (size_t i = 0; i < table.all().size(); ++i) pack_parameter(stream, table, i, state);
  finish_step(plan, measures, state);
  return plan;
}

}  // namespace troupe::model
