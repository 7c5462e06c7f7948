#include "model/decode.hpp"

#include "model/stacks.hpp"

namespace troupe::model {

using kernels::AttentionShape;
using kernels::ConstView;
using kernels::DType;
using kernels::View;

namespace {

// `rows` sequences of `length` tokens each; row r belongs to place r * stride.
struct Rows {
  int64_t rows = 0;
  int64_t length = 0;
  int64_t stride = 1;
  ConstView turns;  // Model::turns of the tokens' positions
  int64_t tokens() const { return rows * length; }
};

AttentionShape attention_shape(const ModelConfig& config, int64_t batch, int64_t queries, int64_t keys) {
  AttentionShape shape;
  shape.batch = batch;
  shape.queries = queries;
  shape.keys = keys;
  shape.heads = config.heads;
  shape.head_size = config.width / config.heads;
  return shape;
}

// output (M, C): each row attends to its tokens in the cache, its own included.
void self_attention(Pass& pass, const SelfAttentionParameters& p, int64_t layer, const Rows& rows,
                    DecoderCache& cache, ConstView input, View output) {
  const int64_t width = pass.config.width;
  const size_t mark = pass.arena.mark();
  const View qkv = pass.take_compute(rows.tokens(), 3 * width);
  const View context = pass.take_compute(rows.tokens(), width);
  linear_forward(pass, p.query_key_value, input, qkv);
  if (!rows.turns.empty()) pass.stream.rotate(qkv.col_range(0, 2 * width), rows.turns, false);
  cache.write(pass.stream, layer, qkv.col_range(width, 2 * width), rows.length, rows.stride);
  if (cache.tokens() == 0) {
    AttentionShape shape = attention_shape(pass.config, rows.rows, rows.length, rows.length);
    shape.causal = true;
    pass.stream.attention_forward(shape, qkv.col_range(0, width), qkv.col_range(width, width),
                                  qkv.col_range(2 * width, width), context, {});
  } else {
    AttentionShape shape = attention_shape(pass.config, rows.rows, 1, cache.capacity());
    shape.key_lengths = cache.lengths_with_next();
    shape.keys_by_head = true;
    const auto [keys, values] = cache.self(layer);
    pass.stream.attention_forward(shape, qkv.col_range(0, width), keys, values, context, {});
  }
  linear_forward(pass, p.output, context, output);
  pass.arena.reset(mark);
}

// A sequence's places are so many queries on one set of keys: nothing is kept twice.
void cross_attention(Pass& pass, const CrossAttentionParameters& p, int64_t layer, const Rows& rows,
                     const DecoderCache& cache, ConstView input, View output) {
  const int64_t width = pass.config.width;
  const size_t mark = pass.arena.mark();
  const View query = pass.take_compute(rows.tokens(), width);
  const View context = pass.take_compute(rows.tokens(), width);
  linear_forward(pass, p.query, input, query);
  const Tokens& source = cache.cross_tokens();
  AttentionShape shape =
      attention_shape(pass.config, cache.sequences(), rows.tokens() / cache.sequences(), source.length);
  shape.key_lengths = source.lengths;
  shape.keys_by_head = true;
  const auto [keys, values] = cache.cross(layer);
  pass.stream.attention_forward(shape, query, keys, values, context, {});
  linear_forward(pass, p.output, context, output);
  pass.arena.reset(mark);
}

void decoder_layer(Pass& pass, const DecoderLayerParameters& p, const NormParameters& next, int64_t layer,
                   const Rows& rows, DecoderCache& cache, Flow& flow) {
  NormSaved saved;  // nothing is saved in a forward-only pass
  const bool crosses = p.cross_attention.has_value();
  const Place place{Side::target, layer, {rows.rows, rows.length, nullptr}};
  self_attention(pass, p.self_attention, layer, rows, cache, flow.input, flow.output);
  residual_forward(
      pass, norm_after(pass, p.self_attention_norm, crosses ? *p.cross_attention_norm : p.feed_forward_norm),
      {}, flow, saved);
  if (crosses) {
    cross_attention(pass, *p.cross_attention, layer, rows, cache, flow.input, flow.output);
    residual_forward(pass, norm_after(pass, *p.cross_attention_norm, p.feed_forward_norm), {}, flow, saved);
  }
  FeedForwardSaved inner;
  feed_forward_forward(pass, p.feed_forward, place, flow.input, flow.output, inner);
  residual_forward(pass, norm_after(pass, p.feed_forward_norm, next), {}, flow, saved);
}

NextTokens decode(Pass& pass, const Model& model, std::span<const int32_t> ids, const Rows& rows,
                  int64_t width, DecoderCache& cache) {
  const TransformerParameters& p = model.indices();
  TROUPE_CHECK(int64_t(ids.size()) == rows.tokens() && !pass.training());
  cache.reserve(pass.stream, rows.length);
  const View embedded = pass.take_f32(rows.tokens(), pass.config.width);
  pass.stream.embedding_forward(ids, pass.master(p.target_embedding),
                                model.positions(pass.weights, Side::target, cache.tokens(), rows.length),
                                embedding_scale(pass.config), {}, embedded);
  NormSaved saved;
  Flow flow = begin_flow(pass, p.decoder[0].self_attention_norm, embedded, saved);
  for (size_t i = 0; i < p.decoder.size(); ++i)
    decoder_layer(pass, p.decoder[i], norm_following(p.decoder, p.decoder_norm, i), int64_t(i), rows, cache,
                  flow);
  cache.advance(rows.length);

  const ConstView last = flow.input.row_range(rows.length - 1, rows.tokens() - rows.length + 1);
  const ConstView states{last.data, last.dtype, rows.rows, last.cols, rows.length * last.stride};
  const View logits = pass.take_f32(rows.rows, pass.config.vocabulary);
  pass.stream.linear_forward(states, pass.packed(p.output), {}, logits);
  const NextTokens next{pass.take_f32(rows.rows, width), pass.take(DType::i32, rows.rows, width)};
  pass.stream.log_softmax_topk(logits, width, next.log_probabilities, next.ids);
  return next;
}

}  // namespace

size_t decode_arena_bytes(const ModelConfig& config, int64_t sequences, int64_t beam, int64_t prompt_tokens,
                          int64_t width) {
  // All that decode() and begin_flow() take, as if nothing were given back and everything were f32.
  const int64_t tokens = sequences * std::max(beam, prompt_tokens), rows = sequences * beam;
  const int64_t elements =
      tokens * (10 * config.width + 2 * config.inner + 2) + rows * (config.vocabulary + 2 * width);
  return size_t(elements) * sizeof(float) + 64 * 64;
}

NextTokens decode_prompt(Pass& pass, const Model& model, std::span<const int32_t> ids, int64_t length,
                         int64_t width, DecoderCache& cache) {
  TROUPE_CHECK(cache.tokens() == 0);
  const ConstView turns = model.turns(pass.weights, 0, length);
  return decode(pass, model, ids, {cache.sequences(), length, cache.beam(), turns}, width, cache);
}

NextTokens decode_step(Pass& pass, const Model& model, std::span<const int32_t> ids, int64_t width,
                       DecoderCache& cache) {
  TROUPE_CHECK(cache.tokens() > 0);
  const ConstView turns = model.turns(pass.weights, cache.tokens(), 1);
  return decode(pass, model, ids, {cache.places(), 1, 1, turns}, width, cache);
}

}  // namespace troupe::model
