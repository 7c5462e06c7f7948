#include "model/stacks.hpp"

#include "kernels/base/det_math.hpp"

namespace troupe::model {

using kernels::ConstView;
using kernels::Dropout;
using kernels::View;

float embedding_scale(const ModelConfig& config) {
  return config.scale_embedding ? float(det::sqrt(double(config.width))) : 1.0f;
}

namespace {

size_t embedding_of(const Model& model, Side side) {
  return side == Side::source ? model.indices().source_embedding : model.indices().target_embedding;
}

// (M, C) f32: scaled embeddings plus positions.
View embed_forward(Pass& pass, const Model& model, Side side, const TokenMatrix& tokens) {
  View out = pass.take_f32(int64_t(tokens.rows) * tokens.cols, pass.config.width);
  pass.stream.embedding_forward(
      tokens.ids, pass.master(embedding_of(model, side)), model.positions(pass.weights, side, 0, tokens.cols),
      embedding_scale(pass.config), pass.dropout(pass.config.dropout, side, 0, Site::embedding), out);
  return out;
}

void embed_backward(Pass& pass, const Model& model, Side side, const TokenMatrix& tokens, ConstView dout) {
  const size_t mark = pass.arena.mark();
  const auto positions =
      side == Side::source ? model.indices().source_positions : model.indices().target_positions;
  View dpositions;
  if (positions) dpositions = pass.take_f32(tokens.cols, pass.config.width);
  const Parameter& table = model.parameters().all()[embedding_of(model, side)];
  pass.stream.embedding_backward(tokens.ids, pass.config.pad_id, embedding_scale(pass.config),
                                 pass.dropout(pass.config.dropout, side, 0, Site::embedding), dout,
                                 *pass.sink, table.offset, dpositions);
  if (positions) pass.fold(*positions, dpositions);
  pass.arena.reset(mark);
}

// What a layer's backward pass has folded when it ends: all but its first norm, which in pre-norm belongs to
// the residual of the layer before.
template <typename LayerParameters>
size_t behind_first_norm(const LayerParameters& layer) {
  return layer.self_attention.query_key_value.weight;
}

}  // namespace

const NormParameters& norm_following(const std::vector<EncoderLayerParameters>& layers,
                                     const std::optional<NormParameters>& final_norm, size_t index) {
  if (index + 1 < layers.size()) return layers[index + 1].self_attention_norm;
  return final_norm ? *final_norm : layers[index].feed_forward_norm;
}
const NormParameters& norm_following(const std::vector<DecoderLayerParameters>& layers,
                                     const std::optional<NormParameters>& final_norm, size_t index) {
  if (index + 1 < layers.size()) return layers[index + 1].self_attention_norm;
  return final_norm ? *final_norm : layers[index].feed_forward_norm;
}

Tokens tokens_of(const TokenMatrix& matrix) {
  bool padded = false;
  for (int32_t length : matrix.lengths) padded = padded || length != matrix.cols;
  return {matrix.rows, matrix.cols, padded ? matrix.lengths.data() : nullptr};
}

Memory encoder_forward(Pass& pass, const Model& model, const TokenMatrix& source, EncoderSaved& saved) {
  const auto& layers = model.indices().encoder;
  TROUPE_CHECK(!layers.empty() && int64_t(layers.size()) <= kLayersMax);
  const Tokens tokens = tokens_of(source);
  const ConstView turns = model.turns(pass.weights, 0, tokens.length);
  View embedded = embed_forward(pass, model, Side::source, source);
  Flow flow = begin_flow(pass, layers[0].self_attention_norm, embedded, saved.first);
  for (size_t i = 0; i < layers.size(); ++i)
    encoder_layer_forward(pass, layers[i], norm_following(layers, model.indices().encoder_norm, i),
                          {Side::source, int64_t(i), tokens, turns}, flow, saved.layers[i]);
  return {flow.input, tokens};
}

void encoder_backward(Pass& pass, const Model& model, const TokenMatrix& source, const EncoderSaved& saved,
                      ConstView dmemory) {
  const auto& layers = model.indices().encoder;
  const size_t mark = pass.arena.mark();
  const Tokens tokens = tokens_of(source);
  const ConstView turns = model.turns(pass.weights, 0, tokens.length);
  FlowGradient gradient = begin_flow_gradient(pass, tokens.rows());
  gradient.top = dmemory;
  for (size_t i = layers.size(); i-- > 0;) {
    encoder_layer_backward(pass, layers[i], norm_following(layers, model.indices().encoder_norm, i),
                           {Side::source, int64_t(i), tokens, turns}, saved.layers[i], gradient);
    pass.whole_from(behind_first_norm(layers[i]));
  }
  embed_backward(pass, model, Side::source, source,
                 end_flow_gradient(pass, layers[0].self_attention_norm, saved.first, gradient));
  pass.arena.reset(mark);
}

View decoder_forward(Pass& pass, const Model& model, const TokenMatrix& target, const Memory* memory,
                     DecoderSaved& saved) {
  const auto& layers = model.indices().decoder;
  TROUPE_CHECK(!layers.empty() && int64_t(layers.size()) <= kLayersMax);
  const Tokens tokens = tokens_of(target);
  const ConstView turns = model.turns(pass.weights, 0, tokens.length);
  View embedded = embed_forward(pass, model, Side::target, target);
  Flow flow = begin_flow(pass, layers[0].self_attention_norm, embedded, saved.first);
  for (size_t i = 0; i < layers.size(); ++i)
    decoder_layer_forward(pass, layers[i], norm_following(layers, model.indices().decoder_norm, i),
                          {Side::target, int64_t(i), tokens, turns}, {memory, {}, false}, flow,
                          saved.layers[i]);
  return flow.input;
}

void decoder_backward(Pass& pass, const Model& model, const TokenMatrix& target, const Memory* memory,
                      const DecoderSaved& saved, FlowGradient& gradient, View dmemory) {
  const auto& layers = model.indices().decoder;
  const Tokens tokens = tokens_of(target);
  const ConstView turns = model.turns(pass.weights, 0, tokens.length);
  for (size_t i = layers.size(); i-- > 0;) {
    decoder_layer_backward(pass, layers[i], norm_following(layers, model.indices().decoder_norm, i),
                           {Side::target, int64_t(i), tokens, turns},
                           {memory, dmemory, i + 1 < layers.size()}, saved.layers[i], gradient);
    pass.whole_from(behind_first_norm(layers[i]));
  }
  embed_backward(pass, model, Side::target, target,
                 end_flow_gradient(pass, layers[0].self_attention_norm, saved.first, gradient));
  pass.whole_from(layers[0].self_attention_norm.gamma);
}

}  // namespace troupe::model
