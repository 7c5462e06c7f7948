#include "model/device_trainer.hpp"

#include <algorithm>

#include "model/initialise.hpp"

namespace troupe::model {

using kernels::BlockLayout;
using kernels::Buffer;

namespace {

// The packed weights of a model in one Buffer of the stream's device.
PackedWeights allocate_packed(kernels::CudaStream& stream, const Model& model) {
  const kernels::DType type = model.config().compute;
  const auto& all = model.parameters().all();
  PackedWeights packed;
  packed.views.resize(all.size());
  size_t total = 0;
  for (const Parameter& p : all)
    if (p.packed) total += stream.packed_bytes(p.rows, p.cols, type);
  packed.memory = stream.runtime().allocate(total);
  size_t used = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!all[i].packed) continue;
    packed.views[i] = {static_cast<char*>(packed.memory.data()) + used, all[i].rows, all[i].cols, type};
    used += stream.packed_bytes(all[i].rows, all[i].cols, type);
  }
  return packed;
}

Buffer copy_of(kernels::CudaStream& stream, const float* values, int64_t count) {
  const size_t bytes = size_t(count) * sizeof(float);
  Buffer buffer = stream.runtime().allocate(bytes);
  if (bytes > 0) stream.runtime().copy_in(buffer.data(), values, bytes);
  return buffer;
}

}  // namespace

DeviceTrainer::DeviceTrainer(kernels::CudaStream& stream, const Model& model, const StepOptions& options)
    : stream_(stream),
      model_(model),
      options_(options),
      sum_(stream, model.parameters().layout()),
      total_(stream, model.parameters().layout()) {
  validate(options.optimizer);
  const int64_t elements = model.parameters().elements();
  std::vector<float> initial(static_cast<size_t>(elements));
  initialise(model, options.seed, initial.data());
  counters_.elements = elements;
  counters_.weights = copy_of(stream, initial.data(), elements);
  std::fill(initial.begin(), initial.end(), 0.0f);
  counters_.moment1 = copy_of(stream, initial.data(), elements);
  counters_.moment2 = copy_of(stream, initial.data(), elements);
  const ModelConfig& config = model.config();
  if (config.positions == Positions::sinusoidal) {
    const kernels::ConstView host = model.positions({}, Side::target, 0, config.max_length);
    sinusoids_ = copy_of(stream, host.as<float>(), host.size());
  }
  counters_.packed = allocate_packed(stream, model);
  pack();
}

WeightsView DeviceTrainer::view() const {
  return {counters_.weight_data(), &counters_.packed.views, static_cast<const float*>(sinusoids_.data())};
}

void DeviceTrainer::pack() {
  for (size_t i = 0; i < model_.parameters().all().size(); ++i)
    pack_parameter(stream_, model_.parameters(), i, counters_);
}

void DeviceTrainer::fit_arena(const Batch& batch) {
  const int64_t rows = batch.target_in.rows, length = std::max(batch.source.cols, batch.target_in.cols);
  const size_t bytes = batch.empty() ? 0 : model_.arena_bytes(rows, rows * length, true);
  if (arena_ != nullptr && arena_->capacity() >= bytes) return;
  arena_.reset();  // first: both may not fit
  arena_ = std::make_unique<kernels::Arena>(stream_.runtime().allocate(bytes));
}

kernels::LossSums DeviceTrainer::run_slot(const Batch& batch, const SlotKey& key,
                                          kernels::GradientSink& sink) {
  fit_arena(batch);
  return model_.train_slot(stream_, *arena_, view(), batch, key, options_.optimizer.label_smoothing, sink);
}

StepResult DeviceTrainer::step(const BatchSource& batches) {
  StepResult result;
  sum_.clear(stream_);
  for (uint32_t slot = 0; slot < uint32_t(options_.slots); ++slot) {
    kernels::DeviceSink sink(stream_, sum_,
                             {options_.bits, options_.slots, fold_key(options_.seed, counters_.step, slot)});
    result.loss.add(run_slot(batches(counters_.step, slot), {options_.seed, counters_.step, slot}, sink));
  }
  total_.round(stream_, sum_, {options_.bits, round_key(options_.seed, counters_.step)});
  result.plan = commit(result.loss.tokens, sum_.read_flags(stream_));
  return result;
}

StepPlan DeviceTrainer::commit(int64_t tokens, uint32_t flags) {
  const ParameterTable& table = model_.parameters();
  const BlockLayout& layout = table.layout();
  std::vector<double> blocks(size_t(layout.blocks()));
  stream_.block_square_sums(total_, blocks.data());
  CommitMeasures measures(layout);
  for (size_t range = 0; range < measures.square_sums.size(); ++range) {
    const size_t begin = range * size_t(kRangeBlocks);
    const size_t count = std::min(size_t(kRangeBlocks), blocks.size() - begin);
    measures.square_sums[range] = kernels::fixed_tree_sum(std::span(blocks).subspan(begin, count));
  }
  const StepPlan plan = begin_step(options_.optimizer, counters_, measures, tokens, flags);
  ++counters_.step;
  if (plan.skipped) {
    ++counters_.skipped;
    return plan;
  }
  const auto& segments = layout.segments();  // the parameters, in the same order
  for (size_t i = 0; i < segments.size();) {
    const int64_t begin = segments[i].first_block;
    const bool decays = table.all()[i].decays;
    while (i < segments.size() && table.all()[i].decays == decays) ++i;
    kernels::AdamW adamw = plan.adamw;
    if (!decays) adamw.weight_decay = 0;
    stream_.adamw(adamw, total_, begin, i < segments.size() ? segments[i].first_block : layout.blocks(),
                  {counters_.weight_data(), counters_.moment1_data(), counters_.moment2_data()});
  }
  pack();
  ++counters_.updates;
  counters_.target_tokens += plan.tokens;
  return plan;
}

std::vector<float> DeviceTrainer::weights() const {
  std::vector<float> host(size_t(counters_.elements));
  stream_.runtime().copy_out(host.data(), counters_.weights.data(), host.size() * sizeof(float));
  return host;
}

size_t DeviceTrainer::state_bytes() const {
  const auto elements = size_t(counters_.elements);
  return elements * (3 * sizeof(float) + sizeof(int64_t) + sizeof(int32_t)) + counters_.packed.memory.bytes();
}

}  // namespace troupe::model
