#include <algorithm>
#include <vector>

#include "kernels/base/det_math.hpp"
#include "model/model.hpp"
#include "model/plan_stream.hpp"
#include "model/stacks.hpp"

namespace troupe::model {

using kernels::ConstView;
using kernels::LossSums;
using kernels::View;

namespace {

// Vaswani et al. 2017, section 3.5: sin in even columns and cos in odd ones, with wavelengths from 2 pi to
// 20000 pi.
std::vector<float> sinusoids(int64_t length, int64_t width) {
  std::vector<float> table(size_t(length * width));
  const double log_base = det::log(10000.0);
  for (int64_t c = 0; c < width; c += 2) {
    const double rate = det::exp(-log_base * double(c) / double(width));
    for (int64_t t = 0; t < length; ++t) {
      table[size_t(t * width + c)] = float(det::sin(double(t) * rate));
      table[size_t(t * width + c + 1)] = float(det::cos(double(t) * rate));
    }
  }
  return table;
}

// Su et al. 2021, section 3.2.2: pair i of a head of D channels turns by t * 10000^(-2i/D) at position t. A
// row is D/2 cosines, then D/2 sines.
std::vector<float> rotations(int64_t length, int64_t head_size) {
  std::vector<float> table(size_t(length * head_size));
  const double log_base = det::log(10000.0);
  for (int64_t i = 0; i < head_size / 2; ++i) {
    const double rate = det::exp(-log_base * double(2 * i) / double(head_size));
    for (int64_t t = 0; t < length; ++t) {
      table[size_t(t * head_size + i)] = float(det::cos(double(t) * rate));
      table[size_t(t * head_size + head_size / 2 + i)] = float(det::sin(double(t) * rate));
    }
  }
  return table;
}

void check_tokens(const ModelConfig& config, const TokenMatrix& tokens, const char* side) {
  const size_t cells = size_t(tokens.rows) * size_t(tokens.cols);
  TROUPE_CHECK(tokens.rows > 0 && tokens.cols > 0 && tokens.ids.size() == cells, "{} of ({}, {}) has {} ids",
               side, tokens.rows, tokens.cols, tokens.ids.size());
  TROUPE_CHECK(tokens.lengths.size() == size_t(tokens.rows), "{} has {} lengths", side,
               tokens.lengths.size());
  TROUPE_CHECK(tokens.cols <= config.max_length, "{} is {} long; the model takes {}", side, tokens.cols,
               config.max_length);
}

void check_batch(const ModelConfig& config, const Batch& batch) {
  if (config.family == Family::encoder_decoder) {
    check_tokens(config, batch.source, "source");
    TROUPE_CHECK(batch.source.rows == batch.target_in.rows, "{} sources, {} targets", batch.source.rows,
                 batch.target_in.rows);
  }
  check_tokens(config, batch.target_in, "target");
  TROUPE_CHECK(batch.target_out.size() == batch.target_in.ids.size());
}

class Transformer final : public Model {
 public:
  explicit Transformer(const ModelConfig& config)
      : config_(config), indices_(describe_parameters(config, table_)) {
    if (config.positions == Positions::sinusoidal) sinusoids_ = sinusoids(config.max_length, config.width);
    if (config.positions == Positions::rotary)
      sinusoids_ = rotations(config.max_length, config.width / config.heads);
  }

  const ModelConfig& config() const override { return config_; }
  const ParameterTable& parameters() const override { return table_; }
  const TransformerParameters& indices() const override { return indices_; }

  ConstView positions(const WeightsView& weights, Side side, int64_t begin, int64_t count) const override {
    check_positions(begin, count);
    if (config_.positions == Positions::rotary) return {};
    const float* first = table_of(weights);
    const auto learned = side == Side::source ? indices_.source_positions : indices_.target_positions;
    if (learned) first = weights.master_of(*learned, table_.all()[*learned]);
    return kernels::view_of(first + begin * config_.width, count, config_.width);
  }

  ConstView turns(const WeightsView& weights, int64_t begin, int64_t count) const override {
    check_positions(begin, count);
    if (config_.positions != Positions::rotary) return {};
    const int64_t head_size = config_.width / config_.heads;
    return kernels::view_of(table_of(weights) + begin * head_size, count, head_size);
  }

  size_t arena_bytes(int64_t rows, int64_t tokens, bool training) const override;

  LossSums train_slot(kernels::Stream& stream, kernels::Arena& arena, const WeightsView& weights,
                      const Batch& batch, const SlotKey& key, float label_smoothing,
                      kernels::GradientSink& sink) const override {
    if (batch.empty()) return {};
    check_batch(config_, batch);
    Pass pass{stream, arena, config_, table_, weights, key, &sink};
    return run(pass, batch, label_smoothing);
  }

  LossSums evaluate_slot(kernels::Stream& stream, kernels::Arena& arena, const WeightsView& weights,
                         const Batch& batch, float label_smoothing) const override {
    if (batch.empty()) return {};
    check_batch(config_, batch);
    Pass pass{stream, arena, config_, table_, weights, {}, nullptr};
    return run(pass, batch, label_smoothing);
  }

 private:
  void check_positions(int64_t begin, int64_t count) const {
    TROUPE_CHECK(begin >= 0 && begin + count <= config_.max_length, "positions [{}, {}) of {}", begin,
                 begin + count, config_.max_length);
  }
  const float* table_of(const WeightsView& weights) const {
    return weights.sinusoids != nullptr ? weights.sinusoids : sinusoids_.data();
  }
  LossSums run(Pass& pass, const Batch& batch, float label_smoothing) const;
  size_t plan(const TokenMatrix& shape, bool training) const;

  ModelConfig config_;
  ParameterTable table_;
  TransformerParameters indices_;
  std::vector<float> sinusoids_;  // (max_length, C), or (max_length, D) when rotary; empty when learned
};

LossSums Transformer::run(Pass& pass, const Batch& batch, float label_smoothing) const {
  const size_t mark = pass.arena.mark();
  const bool translates = config_.family == Family::encoder_decoder;
  EncoderSaved encoder;
  DecoderSaved decoder;
  Memory memory;
  if (translates) memory = encoder_forward(pass, *this, batch.source, encoder);
  const Memory* attended = translates ? &memory : nullptr;
  const View states = decoder_forward(pass, *this, batch.target_in, attended, decoder);

  FlowGradient gradient;
  if (pass.training()) gradient = begin_flow_gradient(pass, states.rows);
  kernels::CrossEntropy loss;
  loss.x = states;
  loss.weight = pass.packed(indices_.output);
  loss.targets = batch.target_out.data();
  loss.smoothing = label_smoothing;
  loss.dx = gradient.input;
  loss.sink = pass.sink;
  loss.weight_offset = table_.all()[indices_.output].offset;
  const LossSums sums = pass.stream.cross_entropy(loss);

  if (pass.training()) {
    if (!config_.tied_embeddings) pass.whole_from(indices_.output);
    View dmemory;
    if (translates) dmemory = pass.take_f32(memory.tokens.rows(), config_.width);
    decoder_backward(pass, *this, batch.target_in, attended, decoder, gradient, dmemory);
    if (translates) encoder_backward(pass, *this, batch.source, encoder, dmemory);
  }
  pass.arena.reset(mark);
  return sums;
}

size_t Transformer::plan(const TokenMatrix& shape, bool training) const {
  PlanStream stream;
  PlanSink sink;
  kernels::Arena arena = plan_arena();
  const std::vector<kernels::PackedWeight> packed(table_.all().size());
  const WeightsView weights{static_cast<const float*>(plan_address()), &packed};
  Pass pass{stream, arena, config_, table_, weights, {}, training ? &sink : nullptr};
  Batch batch;
  batch.target_in = shape;
  if (config_.family == Family::encoder_decoder) batch.source = shape;
  run(pass, batch, 0);
  return arena.peak();
}

size_t Transformer::arena_bytes(int64_t rows, int64_t tokens, bool training) const {
  TROUPE_CHECK(rows > 0 && tokens > 0);
  // What is taken grows with rows * length, and a little with length: the largest rectangle and the longest
  // one.
  TokenMatrix largest, longest;
  for (int64_t length = 1; length <= std::min(tokens, config_.max_length); ++length) {
    longest.cols = int32_t(length);
    longest.rows = int32_t(std::min(rows, tokens / length));
    if (int64_t(longest.rows) * length >= int64_t(largest.rows) * largest.cols) largest = longest;
  }
  return std::max(plan(largest, training), plan(longest, training));
}

}  // namespace

std::unique_ptr<Model> make_model(const ModelConfig& config) {
  validate(config);
  return std::make_unique<Transformer>(config);
}

}  // namespace troupe::model
