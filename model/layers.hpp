// The pieces of a Transformer (Vaswani et al. 2017), forward and backward: embeddings, self- and
// cross-attention, feed-forward, the residual stream with its norms, and encoder and decoder layers made of
// them. Saved activations and scratch come from the slot's arena; each parameter's gradient goes to the sink
// as soon as it is whole. In a forward-only pass (no sink) nothing is saved and buffers are reused. One slot,
// one thread.
//
// M = batch * length rows; C width; F inner; "compute" is the type of activations. The residual stream is
// f32.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.hpp"
#include "kernels/base/batch.hpp"
#include "model/config.hpp"
#include "model/model.hpp"
#include "model/parameters.hpp"

namespace troupe::model {

// Where in a slot a dropout mask is drawn.
enum class Site : uint8_t {
  embedding = 0,
  self_attention,
  self_attention_weights,
  cross_attention,
  cross_attention_weights,
  feed_forward,
  feed_forward_inner
};

// What all pieces of one pass over one slot share. `sink` null: forward only, without dropout.
struct Pass {
  kernels::Stream& stream;
  kernels::Arena& arena;
  const ModelConfig& config;
  const ParameterTable& table;
  const WeightsView& weights;
  SlotKey key;
  kernels::GradientSink* sink = nullptr;

  bool training() const { return sink != nullptr; }
  kernels::View take(kernels::DType type, int64_t rows, int64_t cols) { return arena.take(type, rows, cols); }
  kernels::View take_compute(int64_t rows, int64_t cols) { return arena.take(config.compute, rows, cols); }
  kernels::View take_f32(int64_t rows, int64_t cols) { return arena.take(kernels::DType::f32, rows, cols); }
  kernels::ConstView master(size_t index) const;
  kernels::PackedWeight packed(size_t index) const;
  // A mask keyed by (seed, step, slot, side, layer, site); rate 0 outside training.
  kernels::Dropout dropout(float rate, Side side, int64_t layer, Site site) const;
  void fold(size_t index, kernels::ConstView gradient);
  void whole_from(size_t index) const;  // the gradients of this parameter and all behind it are folded
};

// A rectangle of tokens; `lengths` (batch) or null when no row is padded.
struct Tokens {
  int64_t batch = 0;
  int64_t length = 0;
  const int32_t* lengths = nullptr;
  int64_t rows() const { return batch * length; }
};

// Which layer of which stack a piece is. The target side is causal.
struct Place {
  Side side = Side::source;
  int64_t layer = 0;
  Tokens tokens;
  kernels::ConstView turns = {};  // Model::turns of the tokens' positions
};

// --- linear.cpp ---
// y (M, N) = x (M, K) W^T + bias.
void linear_forward(Pass& pass, const LinearParameters& p, kernels::ConstView x, kernels::View y);
// Folds the gradients of weight and bias; dx (M, K) = dy W, overwritten or accumulated, or empty.
void linear_backward(Pass& pass, const LinearParameters& p, kernels::ConstView x, kernels::ConstView dy,
                     kernels::View dx, bool accumulate = false);

// --- attention.cpp ---
struct SelfAttentionSaved {
  kernels::View input, query_key_value, context, lse;
};
// output (M, C) compute = attention of input (M, C) over itself, projected.
void self_attention_forward(Pass& pass, const SelfAttentionParameters& p, const Place& place,
                            kernels::View input, kernels::View output, SelfAttentionSaved& saved);
// dinput (M, C) is overwritten.
void self_attention_backward(Pass& pass, const SelfAttentionParameters& p, const Place& place,
                             const SelfAttentionSaved& saved, kernels::ConstView doutput,
                             kernels::View dinput);

// What the decoder attends to: the encoder's output (M_source, C) compute.
struct Memory {
  kernels::View states;
  Tokens tokens;
};
struct CrossAttentionSaved {
  kernels::View input, query, key_value, context, lse;
};
void cross_attention_forward(Pass& pass, const CrossAttentionParameters& p, const Place& place,
                             const Memory& memory, kernels::View input, kernels::View output,
                             CrossAttentionSaved& saved);
struct CrossAttentionGradient {
  kernels::ConstView output;  // (M, C)
  kernels::View input;        // (M, C), overwritten
  kernels::View memory;       // (M_source, C) f32
  bool accumulate_memory = false;
};
void cross_attention_backward(Pass& pass, const CrossAttentionParameters& p, const Place& place,
                              const Memory& memory, const CrossAttentionSaved& saved,
                              const CrossAttentionGradient& gradient);

// --- feed_forward.cpp ---
struct FeedForwardSaved {
  kernels::View input, inner, activated;
};
void feed_forward_forward(Pass& pass, const FeedForwardParameters& p, const Place& place, kernels::View input,
                          kernels::View output, FeedForwardSaved& saved);
void feed_forward_backward(Pass& pass, const FeedForwardParameters& p, const Place& place,
                           const FeedForwardSaved& saved, kernels::ConstView doutput, kernels::View dinput);

// --- residual.cpp ---
// The stream between sublayers. Pre-norm: input = norm(residual). Post-norm: residual and input are the same
// values.
struct Flow {
  kernels::View residual;    // (M, C) f32
  kernels::View input;       // (M, C) compute: what the next sublayer reads
  kernels::View output;      // (M, C) compute: scratch for a sublayer's output
  kernels::View spare;       // (M, C) f32, forward-only post-norm
  kernels::View mean, rstd;  // (1, M), forward only; RMS norm has no mean
};
struct NormSaved {
  kernels::View sum, mean, rstd;
};
struct FlowGradient {
  kernels::ConstView top;  // f32 gradient of the stack's output, when it is not in `input`
  kernels::View residual;  // f32 gradient of the residual stream past the next norm; valid if has_residual
  kernels::View input;     // compute: gradient of what the sublayer read; valid unless `top` is set
  kernels::View output;    // compute: gradient of a sublayer's output
  kernels::View spare;     // f32, post-norm
  bool has_residual = false;
};
// Starts a stack from its embeddings (M, C) f32. `first` is the norm before the first sublayer (pre-norm
// only).
Flow begin_flow(Pass& pass, const NormParameters& first, kernels::View embedded, NormSaved& saved);
// flow.residual += dropout(flow.output), then the norm that follows the sum.
void residual_forward(Pass& pass, const NormParameters& norm, const kernels::Dropout& dropout, Flow& flow,
                      NormSaved& saved);
FlowGradient begin_flow_gradient(Pass& pass, int64_t rows);
// Leaves the gradient of the sublayer's output in gradient.output.
void residual_backward(Pass& pass, const NormParameters& norm, const kernels::Dropout& dropout,
                       const NormSaved& saved, FlowGradient& gradient);
// The gradient (M, C) f32 of the embeddings.
kernels::ConstView end_flow_gradient(Pass& pass, const NormParameters& first, const NormSaved& saved,
                                     FlowGradient& gradient);

// --- layer.cpp ---
struct EncoderLayerSaved {
  SelfAttentionSaved self_attention;
  NormSaved after_self_attention;
  FeedForwardSaved feed_forward;
  NormSaved after_feed_forward;
};
struct DecoderLayerSaved {
  SelfAttentionSaved self_attention;
  NormSaved after_self_attention;
  CrossAttentionSaved cross_attention;
  NormSaved after_cross_attention;
  FeedForwardSaved feed_forward;
  NormSaved after_feed_forward;
};
// Which norm follows a sublayer's residual sum: its own (post-norm) or that of the sublayer after it
// (pre-norm).
const NormParameters& norm_after(const Pass& pass, const NormParameters& own,
                                 const NormParameters& following);
// `next` is the norm of the sublayer that follows the layer (the final norm after the last): used in pre-norm
// only.
void encoder_layer_forward(Pass& pass, const EncoderLayerParameters& p, const NormParameters& next,
                           const Place& place, Flow& flow, EncoderLayerSaved& saved);
void encoder_layer_backward(Pass& pass, const EncoderLayerParameters& p, const NormParameters& next,
                            const Place& place, const EncoderLayerSaved& saved, FlowGradient& gradient);
// `memory` null: decoder-only.
struct DecoderContext {
  const Memory* memory = nullptr;
  kernels::View memory_gradient;  // f32; backward only
  bool accumulate_memory = false;
};
void decoder_layer_forward(Pass& pass, const DecoderLayerParameters& p, const NormParameters& next,
                           const Place& place, const DecoderContext& context, Flow& flow,
                           DecoderLayerSaved& saved);
void decoder_layer_backward(Pass& pass, const DecoderLayerParameters& p, const NormParameters& next,
                            const Place& place, const DecoderContext& context, const DecoderLayerSaved& saved,
                            FlowGradient& gradient);

}  // namespace troupe::model
