#include "model/device_trainer.hpp"

#include <algorithm>

#include "kernels/base/random.hpp"
#include "kernels/cuda/checksum.hpp"
#include "kernels/scratch.hpp"
#include "model/fitting.hpp"

namespace troupe::model {

using kernels::BlockLayout;
using kernels::Buffer;
using kernels::CudaStream;
using kernels::device::MemoryPiece;

namespace {

constexpr int64_t kPieceWords = 65536;  // of a checksum

double gibibytes(size_t bytes) {
  return double(bytes) / double(size_t{1} << 30);
}

// The arrays of a state, allocated before the sums: what does not fit is said at once.
TrainState allocate_on(CudaStream& stream, const Model& model) {
  const size_t needed = DeviceTrainer::state_bytes(stream, model), free = stream.runtime().memory().free;
  const int64_t parameters = model.parameters().elements();
  if (needed > free)
    throw error(
        ErrorKind::out_of_memory,
        "the model does not fit on the device: weights, moments and sums take {} bytes ({:.2f} GiB), "
        "{:.1f} a parameter, and activations come on top, but {} ({:.2f} GiB) are free; use a smaller model: "
        "this one has {} parameters, and fewer than {} would fit",
        needed, gibibytes(needed), double(needed) / double(parameters), free, gibibytes(free), parameters,
        parameters_that_fit(free, parameters, needed));
  const auto allocate = [&](size_t bytes) { return stream.runtime().allocate(bytes); };
  TrainState state = allocate_state(allocate, model.parameters().elements());
  state.packed = allocate_packed(allocate, stream, model);
  return state;
}

// After a slot's activations have not found room in `free` bytes.
std::string what_would_fit(const Model& model, size_t free, int64_t tokens) {
  const int64_t fitting = tokens_that_fit(model, free, tokens - 1);
  if (fitting == 0) return "a slot of one token would not fit either; use a smaller model";
  return fmt::format(
      "activations of {} tokens would fit, and temporary memory comes on top: prepare the data with "
      "--pack-tokens below {}{}, or use a smaller model",
      fitting, fitting, fitting < model.config().max_length ? " and a --max-length no larger" : "");
}

Buffer place_sinusoids(CudaStream& stream, const Model& model) {
  const ModelConfig& config = model.config();
  if (config.positions == Positions::learned) return {};
  const kernels::ConstView host = config.positions == Positions::rotary
                                      ? model.turns({}, 0, config.max_length)
                                      : model.positions({}, Side::target, 0, config.max_length);
  Buffer buffer = stream.runtime().allocate(size_t(host.size()) * sizeof(float));
  stream.runtime().copy_in(buffer.data(), host.data, buffer.bytes());
  return buffer;
}

// Sets its marks where equal parts of the elements, or a little more, are whole; the last part is so at the
// end of the slot.
class MarkingSink final : public kernels::DeviceSink {
 public:
  static constexpr int64_t kParts = int64_t(kernels::DeviceRuntime::kMarks) + 1;

  MarkingSink(CudaStream& stream, kernels::DeviceAccumulator& sum, const kernels::FoldOptions& options)
      : DeviceSink(stream, sum, options), runtime_(stream.runtime()), elements_(sum.layout().elements()) {}
  void whole_from(int64_t offset) override {
    const int64_t next = int64_t(marked_.size()) + 1;
    if (next == kParts || (elements_ - offset) * kParts < next * elements_) return;
    runtime_.set_mark(marked_.size());
    marked_.push_back(offset);
  }
  const std::vector<int64_t>& marked() const { return marked_; }  // offsets, by mark

 private:
  kernels::DeviceRuntime& runtime_;
  const int64_t elements_;
  std::vector<int64_t> marked_;
};

}  // namespace

DeviceTrainer::DeviceTrainer(CudaStream& stream, const Model& model, const StepOptions& options,
                             const TrainState& from)
    : stream_(stream),
      model_(model),
      options_(options),
      state_(allocate_on(stream, model)),
      sinusoids_(place_sinusoids(stream, model)),
      sum_(stream, model.parameters().layout()),
      total_(stream, model.parameters().layout()) {
  validate(options.optimizer);
  stream_.set_tf32(model.config().products == Products::tf32);
  load(from);
}

DeviceTrainer::DeviceTrainer(CudaStream& stream, const Model& model, const StepOptions& options)
    : DeviceTrainer(stream, model, options, first_state(kernels::allocate_host, model, options.seed)) {}

size_t DeviceTrainer::state_bytes(const CudaStream& stream, const Model& model) {
  const auto elements = size_t(model.parameters().elements());
  size_t bytes = elements * (3 * sizeof(float) + sizeof(int64_t) + sizeof(int32_t)) +
                 size_t(model.parameters().layout().blocks());
  for (const Parameter& p : model.parameters().all())
    if (p.packed) bytes += stream.packed_bytes(p.rows, p.cols, training_type(model.config(), p));
  return bytes;
}

void DeviceTrainer::load(const TrainState& from) {
  TROUPE_CHECK(from.elements == state_.elements, "a state of {} elements for a model of {}", from.elements,
               state_.elements);
  state_.copy_counters(from);
  const size_t bytes = size_t(from.elements) * sizeof(float);
  stream_.runtime().copy_in(state_.weights.data(), from.weights.data(), bytes);
  stream_.runtime().copy_in(state_.moment1.data(), from.moment1.data(), bytes);
  stream_.runtime().copy_in(state_.moment2.data(), from.moment2.data(), bytes);
  pack();
  stream_.synchronize();
}

TrainState DeviceTrainer::copy_state(CudaStream& stream) const {
  TrainState copy = allocate_state(kernels::allocate_host, state_.elements);
  copy.copy_counters(state_);
  const size_t bytes = size_t(state_.elements) * sizeof(float);
  stream.runtime().copy_out(copy.weights.data(), state_.weights.data(), bytes);
  stream.runtime().copy_out(copy.moment1.data(), state_.moment1.data(), bytes);
  stream.runtime().copy_out(copy.moment2.data(), state_.moment2.data(), bytes);
  return copy;
}

WeightsView DeviceTrainer::view() const {
  return {state_.weight_data(), &state_.packed.views, static_cast<const float*>(sinusoids_.data())};
}

void DeviceTrainer::pack() {
  for (size_t i = 0; i < model_.parameters().all().size(); ++i)
    pack_parameter(stream_, model_.parameters(), i, state_);
}

void DeviceTrainer::fit_arena(const Batch& batch, bool training) {
  const int64_t rows = batch.target_in.rows, length = std::max(batch.source.cols, batch.target_in.cols);
  const size_t bytes = batch.empty() ? 0 : model_.arena_bytes(rows, rows * length, training);
  if (arena_ != nullptr && arena_->capacity() >= bytes) return;
  arena_.reset();  // first: both may not fit
  const size_t free = stream_.runtime().memory().free;
  if (bytes > free)
    throw error(ErrorKind::out_of_memory,
                "a slot of {} sentences of up to {} tokens does not fit on the device: its activations take "
                "{} bytes ({:.2f} GiB) beside {} ({:.2f} GiB) for weights, moments and sums, but {} "
                "({:.2f} GiB) are free; {}",
                rows, length, bytes, gibibytes(bytes), state_bytes(), gibibytes(state_bytes()), free,
                gibibytes(free), what_would_fit(model_, free, rows * length));
  arena_ = std::make_unique<kernels::Arena>(stream_.runtime().allocate(bytes));
}

kernels::LossSums DeviceTrainer::run_slot(const Batch& batch, const SlotKey& key,
                                          kernels::GradientSink& sink) {
  fit_arena(batch, true);
  return kernels::gathered(stream_.runtime(), [&] {
    return model_.train_slot(stream_, *arena_, view(), batch, key, options_.optimizer.label_smoothing, sink);
  });
}

kernels::LossSums DeviceTrainer::fold_slot(const Batch& batch, uint32_t slot, uint32_t& flags,
                                           const Whole& whole) {
  MarkingSink sink(stream_, sum_,
                   {options_.bits, options_.slots, fold_key(options_.seed, state_.step, slot)});
  const kernels::LossSums losses = run_slot(batch, {options_.seed, state_.step, slot}, sink);
  for (size_t mark = 0; whole && mark < sink.marked().size(); ++mark) {
    stream_.runtime().wait_for_mark(mark);
    whole(sink.marked()[mark]);
  }
  flags = sum_.take_flags(stream_);
  return losses;
}

kernels::LossSums DeviceTrainer::evaluate_slot(const Batch& batch) {
  fit_arena(batch, false);
  return kernels::gathered(stream_.runtime(), [&] {
    return model_.evaluate_slot(stream_, *arena_, view(), batch, options_.optimizer.label_smoothing);
  });
}

uint64_t DeviceTrainer::hash_of_sum() {
  const auto* words = reinterpret_cast<const uint32_t*>(sum_.values());
  const int64_t count = 2 * sum_.layout().elements();
  std::vector<MemoryPiece> pieces;
  for (int64_t at = 0; at < count; at += kPieceWords)
    pieces.push_back({words + at, std::min(kPieceWords, count - at)});
  uint64_t hash = 0;
  for (const uint64_t sum : checksums(stream_, pieces)) hash = mix64(hash, sum);
  return hash;
}

void DeviceTrainer::clear_sum() {
  sum_.clear(stream_);
  stream_.synchronize();
}

void DeviceTrainer::round_sum() {
  total_.round(stream_, sum_, {options_.bits, round_key(options_.seed, state_.step)});
}

void DeviceTrainer::set_total(const kernels::RoundedTotal& total) {
  total_.copy_from_host(stream_, total);
}

void DeviceTrainer::measure(CommitMeasures& measures) {
  const BlockLayout& layout = model_.parameters().layout();
  std::vector<double> blocks(size_t(layout.blocks()));
  stream_.block_square_sums(total_, blocks.data());
  const int64_t ranges = commit_ranges(layout);
  std::vector<MemoryPiece> pieces;  // of each range its mantissas, then its shifts, whose tail is zeros
  for (int64_t range = 0; range < ranges; ++range) {
    const int64_t begin = range * kRangeBlocks, end = std::min(begin + kRangeBlocks, layout.blocks());
    measures.square_sums[size_t(range)] =
        kernels::fixed_tree_sum(std::span(blocks).subspan(size_t(begin), size_t(end - begin)));
    pieces.push_back({reinterpret_cast<const uint32_t*>(total_.mantissa() + layout.block(begin).offset),
                      layout.elements_in(begin, end)});
    pieces.push_back({reinterpret_cast<const uint32_t*>(total_.shift() + begin), (end - begin + 3) / 4});
  }
  const std::vector<uint64_t> sums = checksums(stream_, pieces);
  for (size_t range = 0; range < size_t(ranges); ++range)
    measures.hashes[range] = mix64(sums[2 * range], sums[2 * range + 1]);
}

void DeviceTrainer::update(const StepPlan& plan) {
  if (plan.skipped) return;
  kernels::gathered(stream_.runtime(), [&] {
    update_arrays(plan.adamw);
    pack();
  });
}

void DeviceTrainer::update_arrays(const kernels::AdamW& rule) {
  const ParameterTable& table = model_.parameters();
  const auto& segments = table.layout().segments();  // the parameters, in the same order
  for (size_t i = 0; i < segments.size();) {
    const int64_t begin = segments[i].first_block;
    const bool decays = table.all()[i].decays;
    while (i < segments.size() && table.all()[i].decays == decays) ++i;
    kernels::AdamW adamw = rule;
    if (!decays) adamw.weight_decay = 0;
    stream_.adamw(adamw, total_, begin,
                  i < segments.size() ? segments[i].first_block : table.layout().blocks(),
                  {state_.weight_data(), state_.moment1_data(), state_.moment2_data()});
  }
}

StepResult DeviceTrainer::step(const BatchSource& batches) {
  StepResult result;
  sum_.clear(stream_);
  for (uint32_t slot = 0; slot < uint32_t(options_.slots); ++slot) {
    kernels::DeviceSink sink(stream_, sum_,
                             {options_.bits, options_.slots, fold_key(options_.seed, state_.step, slot)});
    result.loss.add(run_slot(batches(state_.step, slot), {options_.seed, state_.step, slot}, sink));
  }
  const uint32_t flags = sum_.read_flags(stream_);
  round_sum();
  CommitMeasures measures(model_.parameters().layout());
  measure(measures);
  result.plan = begin_step(options_.optimizer, state_, measures, result.loss.tokens, flags);
  update(result.plan);
  finish_step(result.plan, measures, state_);
  return result;
}

std::vector<float> DeviceTrainer::weights() const {
  std::vector<float> host(size_t(state_.elements));
  stream_.runtime().copy_out(host.data(), state_.weights.data(), host.size() * sizeof(float));
  return host;
}

}  // namespace troupe::model
