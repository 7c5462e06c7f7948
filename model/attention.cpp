#include "model/layers.hpp"

namespace troupe::model {

using kernels::AttentionShape;
using kernels::ConstView;
using kernels::DType;
using kernels::View;

namespace {

AttentionShape self_shape(const Pass& pass, const Place& place) {
  AttentionShape shape;
  shape.batch = place.tokens.batch;
  shape.queries = place.tokens.length;
  shape.keys = place.tokens.length;
  shape.heads = pass.config.heads;
  shape.head_size = pass.config.width / pass.config.heads;
  shape.causal = place.side == Side::target;
  shape.key_lengths = place.tokens.lengths;
  shape.dropout =
      pass.dropout(pass.config.attention_dropout, place.side, place.layer, Site::self_attention_weights);
  return shape;
}

AttentionShape cross_shape(const Pass& pass, const Place& place, const Memory& memory) {
  AttentionShape shape = self_shape(pass, place);
  shape.keys = memory.tokens.length;
  shape.causal = false;
  shape.key_lengths = memory.tokens.lengths;
  shape.dropout =
      pass.dropout(pass.config.attention_dropout, place.side, place.layer, Site::cross_attention_weights);
  return shape;
}

// Queries and keys, or their gradients, where positions are rotary.
void rotate(Pass& pass, const Place& place, View query_key, bool inverse) {
  if (!place.turns.empty()) pass.stream.rotate(query_key, place.turns, inverse);
}

// (B * H, T): the log of each query's sum of exponentials; only a backward pass reads it.
View take_lse(Pass& pass, const Place& place) {
  if (!pass.training()) return {};
  return pass.take_f32(place.tokens.batch * pass.config.heads, place.tokens.length);
}

}  // namespace

void self_attention_forward(Pass& pass, const SelfAttentionParameters& p, const Place& place, View input,
                            View output, SelfAttentionSaved& saved) {
  const int64_t rows = place.tokens.rows(), width = pass.config.width;
  const size_t mark = pass.arena.mark();
  saved.input = input;
  saved.query_key_value = pass.take_compute(rows, 3 * width);
  saved.context = pass.take_compute(rows, width);
  saved.lse = take_lse(pass, place);
  const View qkv = saved.query_key_value;
  linear_forward(pass, p.query_key_value, input, qkv);
  rotate(pass, place, qkv.col_range(0, 2 * width), false);
  pass.stream.attention_forward(self_shape(pass, place), qkv.col_range(0, width), qkv.col_range(width, width),
                                qkv.col_range(2 * width, width), saved.context, saved.lse);
  linear_forward(pass, p.output, saved.context, output);
  if (!pass.training()) pass.arena.reset(mark);
}

void self_attention_backward(Pass& pass, const SelfAttentionParameters& p, const Place& place,
                             const SelfAttentionSaved& saved, ConstView doutput, View dinput) {
  const int64_t rows = place.tokens.rows(), width = pass.config.width;
  const size_t mark = pass.arena.mark();
  View dcontext = pass.take_compute(rows, width);
  View dqkv = pass.take_compute(rows, 3 * width);
  linear_backward(pass, p.output, saved.context, doutput, dcontext);
  const ConstView qkv = saved.query_key_value;
  pass.stream.attention_backward(self_shape(pass, place), qkv.col_range(0, width),
                                 qkv.col_range(width, width), qkv.col_range(2 * width, width), saved.context,
                                 saved.lse, dcontext, dqkv.col_range(0, width), dqkv.col_range(width, width),
                                 dqkv.col_range(2 * width, width));
  rotate(pass, place, dqkv.col_range(0, 2 * width), true);
  linear_backward(pass, p.query_key_value, saved.input, dqkv, dinput);
  pass.arena.reset(mark);
}

void cross_attention_forward(Pass& pass, const CrossAttentionParameters& p, const Place& place,
                             const Memory& memory, View input, View output, CrossAttentionSaved& saved) {
  const int64_t rows = place.tokens.rows(), width = pass.config.width;
  const size_t mark = pass.arena.mark();
  saved.input = input;
  saved.query = pass.take_compute(rows, width);
  saved.key_value = pass.take_compute(memory.tokens.rows(), 2 * width);
  saved.context = pass.take_compute(rows, width);
  saved.lse = take_lse(pass, place);
  const View kv = saved.key_value;
  linear_forward(pass, p.query, input, saved.query);
  linear_forward(pass, p.key_value, memory.states, kv);
  pass.stream.attention_forward(cross_shape(pass, place, memory), saved.query, kv.col_range(0, width),
                                kv.col_range(width, width), saved.context, saved.lse);
  linear_forward(pass, p.output, saved.context, output);
  if (!pass.training()) pass.arena.reset(mark);
}

void cross_attention_backward(Pass& pass, const CrossAttentionParameters& p, const Place& place,
                              const Memory& memory, const CrossAttentionSaved& saved,
                              const CrossAttentionGradient& gradient) {
  const int64_t rows = place.tokens.rows(), width = pass.config.width;
  const size_t mark = pass.arena.mark();
  View dcontext = pass.take_compute(rows, width);
  View dquery = pass.take_compute(rows, width);
  View dkv = pass.take_compute(memory.tokens.rows(), 2 * width);
  linear_backward(pass, p.output, saved.context, gradient.output, dcontext);
  const ConstView kv = saved.key_value;
  pass.stream.attention_backward(cross_shape(pass, place, memory), saved.query, kv.col_range(0, width),
                                 kv.col_range(width, width), saved.context, saved.lse, dcontext, dquery,
                                 dkv.col_range(0, width), dkv.col_range(width, width));
  linear_backward(pass, p.key_value, memory.states, dkv, gradient.memory, gradient.accumulate_memory);
  linear_backward(pass, p.query, saved.input, dquery, gradient.input);
  pass.arena.reset(mark);
}

}  // namespace troupe::model
